/** Requests, and server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html). */

import { OnehopError, UnreachableError } from "./errors.js";

export interface RawEvent {
  id: number;
  event: string;
  data: string;
}

export interface RequestOptions {
  json?: unknown;
  body?: Uint8Array<ArrayBuffer> | string;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

/** One server. */
export class Http {
  readonly #url: string;
  readonly #key: string;
  readonly #fetch: typeof fetch;

  constructor(url: string, key: string, fetcher: typeof fetch) {
    this.#url = url.replace(/\/+$/, "");
    this.#key = key;
    this.#fetch = fetcher;
  }

  /** Raises OnehopError for every status of 400 and more, UnreachableError when nobody answers. */
  async send(method: string, path: string, options: RequestOptions = {}): Promise<Response> {
    const headers: Record<string, string> = { ...options.headers };
    if (this.#key) headers["authorization"] = `Bearer ${this.#key}`;
    const init: RequestInit = { method, headers };
    if (options.signal) init.signal = options.signal;
    if (options.json !== undefined) {
      headers["content-type"] = "application/json";
      init.body = JSON.stringify(options.json);
    } else if (options.body !== undefined) {
      headers["content-type"] = "application/octet-stream";
      init.body = options.body;
    }
    let response: Response;
    try {
      response = await this.#fetch(this.#url + path, init);
    } catch (error) {
      if (options.signal?.aborted) throw error;
      throw new UnreachableError(`${this.#url} does not answer; start it with: onehop serve`, error);
    }
    if (!response.ok) throw await OnehopError.from(response);
    return response;
  }

  async json<T>(method: string, path: string, options: RequestOptions = {}): Promise<T> {
    return (await (await this.send(method, path, options)).json()) as T;
  }
}

/** Events as they come; comments keep the connection alive and are left out. */
export async function* events(response: Response): AsyncGenerator<RawEvent> {
  if (!response.body) return;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      rest += value;
      for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
        const block = rest.slice(0, end);
        rest = rest.slice(end + 2);
        const found: RawEvent = { id: 0, event: "", data: "" };
        for (const line of block.split("\n")) {
          if (line.startsWith("id: ")) found.id = Number(line.slice(4));
          else if (line.startsWith("event: ")) found.event = line.slice(7);
          else if (line.startsWith("data: ")) found.data += line.slice(6);
        }
        if (found.event) yield found;
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
