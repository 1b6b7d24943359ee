/** What is known about the model that answers; fetched anew when an answer names another bundle. */

import { endpoint, get } from "./api.js";

class Known extends EventTarget {
  /** `GET /v1/model`, or null as long as it is not known. */
  info = null;
  error = null;
  #loading = null;

  /** Fetch it; the error that prevents it is kept, not thrown. */
  load() {
    this.#loading ??= this.#fetch().finally(() => (this.#loading = null));
    return this.#loading;
  }

  async #fetch() {
    try {
      this.info = await get("v1/model");
      this.error = null;
      const { limits, judge } = this.info;
      endpoint.answerWithinS = limits.wait_s + (judge?.wait_s ?? 0) + 20; // a network's share on top
    } catch (error) {
      this.error = error;
    }
    this.dispatchEvent(new Event("change"));
  }

  /** Take note of the bundle that gave an answer. */
  answeredBy(bundle) {
    if (this.info !== null && this.info.bundle !== bundle) this.load();
  }

  /** What the model knows of a label; undefined where it does not know it. */
  label(name) {
    return this.info?.labels.find((one) => one.label === name);
  }

  get labels() {
    return this.info?.labels ?? [];
  }
}

export const known = new Known();
