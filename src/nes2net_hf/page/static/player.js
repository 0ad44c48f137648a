// Plays a stretch of the recording and shows where it is. `element` holds the verdict, whose content is exchanged.
let stretch = null; // that plays: [start, end] in seconds

function play(start, end) {
  const audio = element.querySelector("audio");
  stretch = [start, end];
  audio.currentTime = start;
  audio.play();
}

function follow() {
  const audio = element.querySelector("audio");
  if (!audio) return;
  const time = audio.currentTime;
  const { duration } = element.querySelector(".timeline").dataset;
  element.querySelector(".playhead").style.left = `${Math.min(100, (100 * time) / duration)}%`;
  if (stretch && time >= stretch[1]) {
    audio.pause();
    stretch = null;
  }
  if (!audio.paused) requestAnimationFrame(follow);
}

element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-start]");
  const timeline = event.target.closest(".timeline");
  if (button) {
    play(Number(button.dataset.start), Number(button.dataset.end));
  } else if (timeline) {
    const box = timeline.getBoundingClientRect();
    play((timeline.dataset.duration * (event.clientX - box.left)) / box.width, Infinity);
  }
});

// Events of media do not bubble: they are caught on their way down.
element.addEventListener("play", follow, true);
element.addEventListener("seeked", follow, true);
element.addEventListener(
  "seeking",
  ({ target }) => {
    // By the player's own controls, out of the stretch: what follows plays on.
    if (stretch && (target.currentTime < stretch[0] - 0.05 || target.currentTime > stretch[1])) stretch = null;
  },
  true,
);
