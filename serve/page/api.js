/** The endpoint: one way to ask it, whatever happens to it meanwhile. */

import { askToken } from "./token.js";

const TRIES = 5; // of a call that is refused for overload, the first one included
const LONGEST_WAIT_S = 60; // a longer Retry-After is not waited for
const MAX_ROUNDS_AWAY = 3; // an endpoint that falls over one call three times must not get it again
const AWAY_POLL_MS = 1500;
const ANSWER_WITHIN_S = 30; // until the endpoint has told its own limits
const AWAY = "Waiting for the endpoint.";

const TOKEN = "red_ray.token";

/** What the endpoint refused, or that it gave no answer; `status` 0 where there was none. */
export class ApiError extends Error {
  constructor(status, detail, requestId = "") {
    super(detail);
    this.name = "ApiError";
    this.status = status;
    this.requestId = requestId;
  }
}

/** Whether the endpoint answers, and whoever wants to know. */
class Endpoint extends EventTarget {
  state = "up"; // up | away | starting
  detail = "";
  answerWithinS = ANSWER_WITHIN_S;
  #coming = null;

  #become(state, detail = "") {
    if (this.state === state && this.detail === detail) return;
    this.state = state;
    this.detail = detail;
    this.dispatchEvent(new Event("change"));
  }

  /** Take note that a call found no connection, and look out for it. */
  lost() {
    this.#become("away");
    this.back();
  }

  /** Kept when the endpoint is ready again; it is asked every now and then. */
  back() {
    this.#coming ??= this.#wait().finally(() => (this.#coming = null));
    return this.#coming;
  }

  async #wait() {
    for (;;) {
      const { status, detail } = await this.#look();
      if (status === 200) return this.#become("up");
      this.#become(status === 503 ? "starting" : "away", detail);
      await sleep(AWAY_POLL_MS);
    }
  }

  async #look() {
    try {
      const response = await fetch("readyz", {
        cache: "no-store",
        signal: AbortSignal.timeout(5000),
      });
      return { status: response.status, detail: detailOf(await response.text()) };
    } catch {
      return { status: 0, detail: "" };
    }
  }

  /** Whether it says that it is ready, now. */
  async isReady() {
    return (await this.#look()).status === 200;
  }
}

export const endpoint = new Endpoint();

/** GET a path; see `call`. */
export const get = (path, how) => call("GET", path, undefined, how);

/** POST a body as JSON; see `call`. */
export const post = (path, body, how) => call("POST", path, body, how);

/**
 * Ask the endpoint; all its calls may be repeated without harm.
 *
 * An endpoint that is away is waited for, an overloaded one for as long as it asks, a few times,
 * and for a token the person is asked. `tell` is given words to show while that goes on, and "" when
 * it is over. `patient: false` does none of this: a refusal is thrown at once.
 *
 * Throws ApiError, or AbortError where `signal` was raised.
 */
async function call(method, path, body, { signal, tell = () => {}, patient = true } = {}) {
  let refusals = 0;
  let rounds = 0;
  try {
    for (;;) {
      if (patient && endpoint.state !== "up") {
        tell(AWAY);
        await until(endpoint.back(), signal);
        tell("");
      }
      const sent = storedToken();
      const answer = await sentTo(method, path, body, sent, signal);
      if (answer === null || answer.status === 502 || answer.status === 504) {
        rounds += 1;
        endpoint.lost();
        if (!patient || rounds > MAX_ROUNDS_AWAY)
          throw new ApiError(0, "the endpoint went away while it was asked");
      } else if (answer.status === 200) return told(answer);
      else if (answer.status === 401 && patient) await newToken(sent, signal);
      else if (answer.status === 503 && patient) {
        refusals += 1;
        await refused(answer, refusals, signal, tell);
      } else throw errorOf(answer);
    }
  } finally {
    tell("");
  }
}

/** Status, headers and text of the answer; null where there was no connection. */
async function sentTo(method, path, body, token, signal) {
  const late = AbortSignal.timeout(1000 * endpoint.answerWithinS);
  const headers = {};
  if (body !== undefined) headers["content-type"] = "application/json";
  if (token) headers.authorization = `Bearer ${token}`;
  try {
    const response = await fetch(path, {
      method,
      headers,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      signal: signal ? AbortSignal.any([signal, late]) : late,
    });
    return { status: response.status, headers: response.headers, text: await response.text() };
  } catch (error) {
    if (signal?.aborted) throw error;
    if (late.aborted)
      throw new ApiError(0, `no answer within ${Math.round(endpoint.answerWithinS)} s; try again`);
    return null;
  }
}

function told({ status, text }) {
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError(status, "something else than the endpoint answered, and cannot be read");
  }
}

function errorOf({ status, headers, text }) {
  const detail = detailOf(text) || `the endpoint answered ${status}`;
  return new ApiError(status, detail, headers.get("x-request-id") ?? "");
}

function detailOf(text) {
  try {
    const { detail } = JSON.parse(text);
    return typeof detail === "string" ? detail : "";
  } catch {
    return ""; // what stands before the endpoint answers in its own way
  }
}

/** Wait as long as an overloaded endpoint asks, or throw its refusal. */
async function refused(answer, refusals, signal, tell) {
  const error = errorOf(answer);
  const asked = Number(answer.headers.get("retry-after") ?? "");
  const seconds = Number.isFinite(asked) && asked > 0 ? Math.ceil(asked) : 2;
  if (refusals >= TRIES || seconds > LONGEST_WAIT_S) {
    if (await endpoint.isReady()) throw error;
    await until(endpoint.back(), signal); // not busy but gone, or not yet there
    return;
  }
  for (let left = seconds; left > 0; left -= 1) {
    tell(
      `The endpoint is busy (${error.message}). Trying again in ${left} s, ${refusals} of ${TRIES - 1}.`,
    );
    await until(sleep(1000), signal);
  }
  tell(`Trying again, ${refusals} of ${TRIES - 1}.`);
}

function storedToken() {
  return sessionStorage.getItem(TOKEN) ?? "";
}

/** Ask the person for a token, unless another call got one meanwhile. */
async function newToken(refusedToken, signal) {
  if (storedToken() !== refusedToken) return;
  const token = await until(
    askToken(refusedToken ? "That token was not taken. Try another one." : ""),
    signal,
  );
  if (token === null) throw new ApiError(401, "this endpoint asks for a token");
  sessionStorage.setItem(TOKEN, token);
}

const sleep = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

/** A promise's value, unless the signal is raised before. */
function until(promise, signal) {
  if (!signal) return promise;
  return new Promise((done, fail) => {
    const stop = () => fail(signal.reason);
    if (signal.aborted) return stop();
    signal.addEventListener("abort", stop, { once: true });
    promise.then(done, fail).finally(() => signal.removeEventListener("abort", stop));
  });
}
