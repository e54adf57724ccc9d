// The connection: server-sent events into the store. A pause closes it; after that everything is told once more.

export class Stream {
  constructor(store, onFrame, onState) {
    this.store = store;
    this.onFrame = onFrame;
    this.onState = onState;
    this.source = null;
    this.state = "connecting";
  }

  open() {
    this.close();
    const source = (this.source = new EventSource("/api/events"));
    const take = (event) => {
      const frame = JSON.parse(event.data);
      this.onFrame(this.store.apply(frame, event.lastEventId.split("-")[0]), frame.whole === true);
    };
    source.addEventListener("whole", take);
    source.addEventListener("change", take);
    source.onopen = () => this.say("live");
    source.onerror = () => {
      this.say("away");
      // The browser tries again by itself, unless it was refused: then ask why, and try again later.
      if (source.readyState === EventSource.CLOSED) {
        this.retry = setTimeout(() => this.open(), 3000);
      }
    };
  }

  close() {
    clearTimeout(this.retry);
    this.source?.close();
    this.source = null;
  }

  pause() {
    this.close();
    this.say("paused");
  }

  say(state) {
    this.state = state;
    this.onState(state);
  }
}
