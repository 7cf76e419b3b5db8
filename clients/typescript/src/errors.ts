/** What a server answers when it cannot do what was asked (RFC 9457), and what goes wrong on the way to it. */

/** A request that the server refused. */
export class OnehopError extends Error {
  override readonly name: string = "OnehopError";

  /**
   * @param status of HTTP; 0 when no server answered.
   * @param type the problem's name, such as `session-not-found`.
   * @param detail one sentence: what was wrong and what to do.
   * @param extra further members of the problem.
   * @param retryAfterS seconds after which the same request has a chance.
   */
  constructor(
    readonly status: number,
    readonly type: string,
    readonly detail: string,
    readonly extra: Readonly<Record<string, unknown>> = {},
    readonly retryAfterS?: number,
  ) {
    super(detail);
  }

  /** @internal */
  static async from(response: Response): Promise<OnehopError> {
    const text = await response.text();
    const retry = Number(response.headers.get("retry-after") ?? NaN);
    try {
      const { type = "", detail = text, title: _, status: __, ...extra } = JSON.parse(text) as Record<string, string>;
      const name = type.replace("urn:onehop:problem:", "");
      return new OnehopError(response.status, name, detail, extra, Number.isNaN(retry) ? undefined : retry);
    } catch {
      return new OnehopError(response.status, "unknown", text.slice(0, 500) || response.statusText);
    }
  }
}

/** The server cannot be reached, or the connection broke for good. */
export class UnreachableError extends OnehopError {
  override readonly name = "UnreachableError";

  constructor(detail: string, cause?: unknown) {
    super(0, "unreachable", detail);
    this.cause = cause;
  }
}
