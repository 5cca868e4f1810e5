/**
 * All requests to the box. The key is kept for this tab alone, and asked for when the box asks for one. Without a key
 * requests carry the cookie of the session, if somebody signed in; where people may, the login page opens in place of
 * the question for a key.
 *
 * @typedef {Record<string, string | number | boolean | string[] | null | undefined>} Parameters
 *   those that are null or undefined are left out; of a list each value is a parameter
 */

const KEY = "whimbrel.key";

/** Maximum duration of a response from which the box's clock is computed. */
const QUICK_MS = 1_000;

/** An error response of the box, or a network error; its message is a sentence for users. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status 0 without a response
   * @param {string} type of the problem, as in docs/errors.md
   */
  constructor(message, status = 0, type = "") {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.type = type;
  }
}

export class Api {
  #askForKey;
  #login;
  #csrfToken = "";
  /** @type {Promise<string> | null} */
  #asking = null;
  /** How far the box's clock is ahead of this one, in milliseconds. */
  #aheadMs = 0;

  /**
   * @param {(why: string) => Promise<string>} askForKey asks the user for a key
   * @param {string} login address of the login page; empty: only keys count
   */
  constructor(askForKey, login = "") {
    this.#askForKey = askForKey;
    this.#login = login;
  }

  /**
   * The signed-in user; null if there is none, or a key is used.
   *
   * @returns {Promise<{user: string, scopes: string[]} | null>}
   */
  async whoIsThere() {
    if (!this.#login || this.hasKey) return null;
    const response = await this.#fetch("/v1/session", {}, { Accept: "application/json" });
    if (!response.ok) return null;
    const found = await response.json();
    this.#csrfToken = found.csrf_token ?? "";
    return found.user ? found : null;
  }

  /** End the session, and open the login page. */
  async signOut() {
    const headers = { "X-CSRF-Token": this.#csrfToken };
    const response = await fetch("/logout", { method: "POST", headers, credentials: "same-origin" });
    if (!response.ok && response.status !== 403) throw await problemOf(response); // 403: the session has already ended
    location.assign(this.#login);
  }

  /** Leave for the login page, which returns to the current view after sign-in. */
  #openLogin() {
    const target = `${location.pathname}${location.hash}`;
    location.assign(`${this.#login}?next=${encodeURIComponent(target)}`);
    return new Promise(() => {});
  }

  /** True if this tab has a key. */
  get hasKey() {
    return sessionStorage.getItem(KEY) !== null;
  }

  /** Forget the key of this tab. */
  forgetKey() {
    sessionStorage.removeItem(KEY);
  }

  /** The time by the box's clock, in milliseconds since 1970; ages are computed from it. */
  now() {
    return Date.now() + this.#aheadMs;
  }

  /**
   * The JSON of a response. Throws `ApiError`, and `AbortError` when `signal` is aborted.
   *
   * @param {string} path
   * @param {Parameters} [parameters]
   * @param {{signal?: AbortSignal}} [more]
   */
  async json(path, parameters = {}, { signal } = {}) {
    const response = await this.get(path, parameters, { signal, headers: { Accept: "application/json" } });
    return response.json();
  }

  /**
   * A successful response, or one with a status in `alsoGood`, whose body is not read yet. Throws the errors of `json`.
   *
   * @param {string} path
   * @param {Parameters} [parameters]
   * @param {{signal?: AbortSignal, headers?: Record<string, string>, alsoGood?: number[]}} [more]
   */
  async get(path, parameters = {}, { signal, headers = {}, alsoGood = [] } = {}) {
    const key = sessionStorage.getItem(KEY);
    const response = await this.#fetch(path, parameters, headers, signal);
    if (response.ok || alsoGood.includes(response.status)) return response;
    const problem = await problemOf(response);
    if (response.status !== 401) throw problem;
    if (this.#login && key === null && !this.hasKey) return this.#openLogin();
    const isStillThere = sessionStorage.getItem(KEY) === key;
    if (isStillThere) await this.askForAnother(problem);
    return this.get(path, parameters, { signal, headers, alsoGood });
  }

  /**
   * Ask for another key after a rejection. Concurrent rejected requests share one dialog.
   *
   * @param {ApiError} problem
   */
  async askForAnother(problem) {
    this.#asking ??= this.#askForKey(this.hasKey ? problem.message : "").finally(() => {
      this.#asking = null;
    });
    this.forgetKey();
    sessionStorage.setItem(KEY, await this.#asking);
  }

  async #fetch(path, parameters, headers, signal = undefined) {
    const key = sessionStorage.getItem(KEY);
    // the header tells the box that the page asks: it leaves out the challenge by which browsers ask for a password
    const own = key === null ? { "X-CSRF-Token": this.#csrfToken } : { Authorization: `Bearer ${key}` };
    const all = { ...headers, ...own };
    const how = /** @type {const} */ ({ cache: "no-store", credentials: key === null ? "same-origin" : "omit" });
    const sentMs = Date.now();
    try {
      const response = await fetch(address(path, parameters), { headers: all, signal, ...how });
      if (Date.now() - sentMs < QUICK_MS) this.#setClock(response.headers.get("Date"));
      return response;
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError("The box does not answer.");
    }
  }

  /** Set the clock's offset. The header has whole seconds, so differences below 2 s are ignored. */
  #setClock(date) {
    const aheadMs = Date.parse(date ?? "") + 500 - Date.now();
    if (!Number.isNaN(aheadMs)) this.#aheadMs = Math.abs(aheadMs) < 2_000 ? 0 : aheadMs;
  }
}

/**
 * A path of the API with its parameters.
 *
 * @param {string} path
 * @param {Parameters} [parameters]
 */
export function address(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value === null || value === undefined) continue;
    for (const one of Array.isArray(value) ? value : [value]) query.append(name, String(one));
  }
  return query.size ? `${path}?${query}` : path;
}

/** The box's problem as a sentence. */
async function problemOf(response) {
  try {
    const { title, detail, type } = await response.json();
    return new ApiError(detail ? `${title}: ${detail}` : title, response.status, type);
  } catch {
    return new ApiError(`The box answered with status ${response.status}.`, response.status);
  }
}
