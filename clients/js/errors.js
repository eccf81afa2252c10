/** Base class of the client's errors. A wrong argument is a TypeError. */
export class ClientError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message);
    this.name = this.constructor.name;
  }
}

/** No FlashFlow answered properly in time. */
export class Unreachable extends ClientError {
  /** Milliseconds that the server asked to wait, or 0. */
  retryAfter = 0;
}

/** The program at the address did not prove that it knows the key; the key was not sent. */
export class NotProven extends Unreachable {}

/** The server refused the request; `code` and `errors` are those of its problem+json. */
export class Refused extends ClientError {
  /**
   * @param {number} status
   * @param {Record<string, any>} problem
   */
  constructor(status, problem) {
    super(wordsOf(status, problem));
    this.status = status;
    this.code = String(problem.code ?? "");
    this.errors = Array.isArray(problem.errors) ? problem.errors : [];
  }
}

/**
 * Return the server's message: its detail and each wrong field.
 * @param {number} status
 * @param {Record<string, any>} problem
 */
export function wordsOf(status, problem) {
  const detail = String(problem.detail ?? problem.title ?? `HTTP ${status}`);
  const errors = Array.isArray(problem.errors) ? problem.errors : [];
  const fields = errors.map((each) => `${each?.field}: ${each?.message}`).filter((each) => !detail.includes(each));
  return [detail, ...fields].join("; ").slice(0, 2000);
}
