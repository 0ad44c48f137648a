// Plays a stretch of the recording and moves the playhead. `element` contains the verdict; its content is replaced.
let stretch = null; // the stretch that is playing: [start, end] in seconds

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

// Media events do not bubble, so they are captured.
element.addEventListener("play", follow, true);
element.addEventListener("seeked", follow, true);
element.addEventListener(
  "seeking",
  ({ target }) => {
    // If the user seeks out of the stretch, playing continues past its end.
    if (stretch && (target.currentTime < stretch[0] - 0.05 || target.currentTime > stretch[1])) stretch = null;
  },
  true,
);
