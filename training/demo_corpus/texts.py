"""What the text-to-speech voices say: prompts, sentences, numbers and lists of words, as the recordings hold them."""

from __future__ import annotations

import numpy as np

# Per language: sentences, then single words (the KDE recordings are letters, syllables and words).
SENTENCES: dict[str, tuple[str, ...]] = {
    "en": (
        "Please try again.",
        "The person at this extension is not available.",
        "You have no new messages.",
        "Press one to listen to the message, or two to delete it.",
        "Your call is important to us.",
        "The number you have dialled is not in service.",
        "Please hold while I try that extension.",
        "At the tone, the time will be exactly nine o'clock.",
        "All our agents are busy at the moment.",
        "Please enter your password, followed by the pound key.",
        "The conference will begin when the leader arrives.",
        "We walked along the river until the rain began.",
        "She wrote the address on the back of an old envelope.",
        "A small boat was waiting behind the lighthouse.",
        "Nobody remembered who had closed the window.",
        "The garden looks different every morning.",
        "He bought fresh bread, butter and a jar of honey.",
        "In winter the road over the pass is often blocked.",
        "They sold the piano because nobody played it any more.",
        "The museum opens at ten and closes at half past five.",
        "My brother repairs watches in a shop near the station.",
        "It takes about an hour to walk around the lake.",
        "The teacher asked a question that nobody expected.",
        "Somebody left a yellow umbrella on the bus.",
        "Coffee grows best in the shade of taller trees.",
        "The letter arrived two weeks after the wedding.",
        "I would rather stay at home and read.",
        "The orchestra tuned their instruments for a long time.",
        "Fishermen mend their nets in the early afternoon.",
        "An owl called twice from the edge of the forest.",
    ),
    "it": (
        "La persona chiamata non risponde.",
        "Per favore inserire il numero e premere cancelletto.",
        "Non ci sono nuovi messaggi.",
        "Il servizio torna domani mattina.",
        "Domani andiamo al mare con la barca di mio zio.",
        "La finestra della cucina guarda sul giardino.",
        "Il treno per Milano parte fra dieci minuti.",
        "Mia sorella suona il violino da molti anni.",
        "Abbiamo comprato pane, olio e pomodori.",
        "Il vecchio mulino si trova vicino al fiume.",
        "Nessuno ricordava il nome della strada.",
        "Il maestro apre il libro e legge ad alta voce.",
    ),
    "ru": (
        "Пожалуйста, попробуйте ещё раз.",
        "Абонент временно недоступен.",
        "У вас нет новых сообщений.",
        "Введите номер и нажмите решётку.",
        "Завтра мы поедем на озеро за городом.",
        "Старый дом стоит на берегу реки.",
        "Поезд отправляется через десять минут.",
        "Моя сестра давно играет на скрипке.",
        "Мы купили хлеб, молоко и яблоки.",
        "Учитель открыл книгу и начал читать вслух.",
    ),
    "hu": (
        "Kérem, próbálja újra.",
        "Nincs új üzenete.",
        "A hívott szám nem elérhető.",
        "Holnap kirándulni megyünk a hegyekbe.",
        "A vonat tíz perc múlva indul.",
        "A nővérem régóta hegedül.",
        "Kenyeret, tejet és almát vettünk.",
        "A régi malom a folyó mellett áll.",
    ),
    "pt-br": (
        "Por favor, tente novamente.",
        "Você não tem novas mensagens.",
        "O número discado não está disponível.",
        "Amanhã vamos à praia com os meus primos.",
        "O trem parte em dez minutos.",
        "A minha irmã toca violino há muitos anos.",
        "Compramos pão, leite e laranjas.",
        "O velho moinho fica perto do rio.",
    ),
    "cs": (
        "Zkuste to prosím znovu.",
        "Nemáte žádné nové zprávy.",
        "Volané číslo není dostupné.",
        "Zítra pojedeme k jezeru za městem.",
        "Vlak odjíždí za deset minut.",
        "Moje sestra hraje na housle už mnoho let.",
        "Koupili jsme chléb, mléko a jablka.",
        "Starý mlýn stojí blízko řeky.",
        "Učitel otevřel knihu a začal číst nahlas.",
        "V zimě bývá silnice přes hory uzavřená.",
    ),
    "fi": (
        "Yritä uudelleen, ole hyvä.",
        "Sinulla ei ole uusia viestejä.",
        "Valitsemasi numero ei ole käytössä.",
        "Huomenna menemme järvelle uimaan.",
        "Juna lähtee kymmenen minuutin kuluttua.",
        "Sisareni on soittanut viulua monta vuotta.",
        "Ostimme leipää, maitoa ja omenoita.",
        "Vanha mylly on joen rannalla.",
        "Opettaja avasi kirjan ja alkoi lukea.",
    ),
    "ca": (
        "Torneu a provar si us plau.",
        "No teniu cap missatge nou.",
        "El nombre marcat no funciona.",
        "Avui anem a la platja amb els meus cosins.",
        "El tren surt en deu minuts.",
        "La meva germana toca el piano des de fa molts anys.",
        "Hem comprat pa, llet i taronges.",
        "El vell pont es troba prop del riu.",
    ),
}

WORDS: dict[str, tuple[str, ...]] = {
    "en": ("yes", "no", "goodbye", "hat", "nose", "moon", "river", "a", "b", "k", "m", "sugar", "window", "seven",
           "monday", "north", "extension", "password", "hello", "camel"),
    "it": ("casa", "luna", "sole", "gatto", "ba", "de", "mi", "fo", "gu", "sette", "lunedi", "grazie", "finestra"),
    "ru": ("дом", "луна", "нос", "шляпа", "ба", "ми", "ку", "семь", "спасибо", "окно", "река"),
    "hu": ("ház", "hold", "kalap", "orr", "ba", "mi", "ku", "hét", "köszönöm", "ablak"),
    "pt-br": ("casa", "lua", "chapéu", "nariz", "ba", "mi", "fo", "sete", "obrigado", "janela"),
    "cs": ("dům", "měsíc", "klobouk", "nos", "ba", "mi", "ku", "sedm", "děkuji", "okno"),
    "fi": ("talo", "kuu", "hattu", "nenä", "ba", "mi", "ku", "kiitos", "ikkuna", "joki"),
    "ca": ("casa", "lluna", "barret", "nas", "ba", "mi", "fo", "set", "finestra", "riu"),
}


def draw(language: str, characters: int, rng: np.random.Generator) -> str:
    """A text of at least `characters`: in six cases of ten sentences, else a list of single words."""
    pool, mark = (SENTENCES[language], " ") if rng.random() < 0.6 else (WORDS[language], ". ")
    pieces: list[str] = []
    while sum(map(len, pieces)) < characters:
        pieces.append(str(rng.choice(pool)))
    return mark.join(pieces)
