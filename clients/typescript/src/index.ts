/** The client of onehop: sessions in which AI-written Python runs, for Node 20 and later and for browsers. */

import { collect, follow, Result } from "./execution.js";
import { OnehopError, UnreachableError } from "./errors.js";
import { Http } from "./http.js";
import type {
  ClientTool,
  CommandOptions,
  Event,
  FileInfo,
  RunOptions,
  SessionInfo,
  SessionOptions,
} from "./types.js";

export { OnehopError, Result, UnreachableError };
export type * from "./types.js";

const DEFAULT_URL = "http://127.0.0.1:8000";

export interface OnehopOptions {
  /** The server (default: ONEHOP_URL where there is an environment, or http://127.0.0.1:8000). */
  url?: string;
  /** Default: ONEHOP_API_KEY where there is an environment. */
  apiKey?: string;
  fetch?: typeof fetch;
}

/** One server. */
export class Onehop {
  /** @internal */
  readonly http: Http;

  constructor(options: OnehopOptions = {}) {
    const variables = (globalThis as { process?: { env?: Record<string, string | undefined> } }).process?.env ?? {};
    this.http = new Http(
      options.url ?? (variables["ONEHOP_URL"] || DEFAULT_URL),
      options.apiKey ?? variables["ONEHOP_API_KEY"] ?? "",
      options.fetch ?? globalThis.fetch.bind(globalThis),
    );
  }

  /** Runs code in a sandbox of its own, which is gone afterwards. */
  async run(code: string, options: Omit<RunOptions, "context"> & SandboxOptions = {}): Promise<Result> {
    const { environment, memory_mb, processes, workspace_mb, ...rest } = options;
    const body = { ...asked(code, rest), environment, memory_mb, processes, workspace_mb };
    return collect(follow(this.http, "/api/execute", body, rest.tools ?? {}, rest.signal), rest);
  }

  /** A new session. End it with `close()`, or by `await using`. */
  async session(options: SessionOptions = {}): Promise<Session> {
    const made = await this.http.json<SessionInfo>("POST", "/api/sessions", {
      json: options,
      headers: { "idempotency-key": crypto.randomUUID() },
    });
    return new Session(this, made.id);
  }

  /** A session that exists already. */
  attach(id: string): Session {
    return new Session(this, id);
  }

  /** The caller's live sessions, oldest first. */
  async sessions(): Promise<SessionInfo[]> {
    return (await this.http.json<{ sessions: SessionInfo[] }>("GET", "/api/sessions")).sessions;
  }
}

export type SandboxOptions = Pick<SessionOptions, "environment" | "memory_mb" | "processes" | "workspace_mb">;

/** A sandbox with its variables and files. */
export class Session {
  readonly files: Files;
  readonly #onehop: Onehop;
  readonly #path: string;

  /** @internal */
  constructor(onehop: Onehop, readonly id: string) {
    this.#onehop = onehop;
    this.#path = `/api/sessions/${encodeURIComponent(id)}`;
    this.files = new Files(onehop.http, this.#path);
  }

  /** Runs code; variables, imports and files of earlier runs are there. */
  async run(code: string, options: RunOptions = {}): Promise<Result> {
    return collect(this.stream(code, options), options);
  }

  /** Runs code and gives what happens as it happens; the last event is `end`. */
  stream(code: string, options: RunOptions = {}): AsyncGenerator<Event> {
    const path = `${this.#path}/execute`;
    return follow(this.#onehop.http, path, asked(code, options), options.tools ?? {}, options.signal);
  }

  /** Runs a shell command to its end; it runs beside code. */
  async command(command: string, options: CommandOptions = {}): Promise<Result> {
    const { onStdout: _, onStderr: __, signal, ...rest } = options;
    const body = { command, ...rest, on_disconnect: signal ? "interrupt" : "continue" };
    return collect(follow(this.#onehop.http, `${this.#path}/commands`, body, {}, signal), options);
  }

  /** Stops what runs in a context and keeps the variables; false when nothing ran. */
  async interrupt(context = "main"): Promise<boolean> {
    const path = `${this.#path}/interrupt`;
    return (await this.#onehop.http.json<{ interrupted: boolean }>("POST", path, { json: { context } })).interrupted;
  }

  async info(): Promise<SessionInfo> {
    return this.#onehop.http.json("GET", this.#path);
  }

  /** It ends in so many seconds, used or not. */
  async endsIn(seconds: number): Promise<SessionInfo> {
    return this.#onehop.http.json("PATCH", this.#path, { json: { ends_in_s: seconds } });
  }

  /** A further interpreter with variables of its own; name it in `run`. */
  async createContext(name?: string): Promise<string> {
    const path = `${this.#path}/contexts`;
    return (await this.#onehop.http.json<{ name: string }>("POST", path, { json: name ? { name } : {} })).name;
  }

  /** Ends it; nothing is left of it. */
  async close(): Promise<void> {
    try {
      await this.#onehop.http.send("DELETE", this.#path);
    } catch (error) {
      if (!(error instanceof OnehopError && (error.status === 404 || error.status === 410))) throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/** The files of a session's workspace. */
export class Files {
  /** @internal */
  constructor(
    private readonly http: Http,
    private readonly path: string,
  ) {}

  async write(path: string, content: string | Uint8Array): Promise<FileInfo> {
    const body = typeof content === "string" ? content : new Uint8Array(content);
    return this.http.json("PUT", this.of(path), { body });
  }

  async read(path: string): Promise<Uint8Array> {
    return new Uint8Array(await (await this.http.send("GET", this.of(path))).arrayBuffer());
  }

  async text(path: string): Promise<string> {
    return (await this.http.send("GET", this.of(path))).text();
  }

  async list(folder = ""): Promise<FileInfo[]> {
    const query = folder ? `?path=${encodeURIComponent(folder)}` : "";
    return (await this.http.json<{ files: FileInfo[] }>("GET", `${this.path}/files${query}`)).files;
  }

  async move(path: string, to: string, options: { overwrite?: boolean } = {}): Promise<FileInfo> {
    return this.http.json("POST", this.of(path), { json: { move_to: to, overwrite: options.overwrite ?? false } });
  }

  async delete(path: string, options: { recursive?: boolean } = {}): Promise<void> {
    await this.http.send("DELETE", this.of(path) + (options.recursive ? "?recursive=true" : ""));
  }

  private of(path: string): string {
    return `${this.path}/files/${path.split("/").map(encodeURIComponent).join("/")}`;
  }
}

function asked(code: string, options: RunOptions): Record<string, unknown> {
  const { tools, serverTools, files, signal, onStdout: _, onStderr: __, onResult: ___, ...rest } = options;
  const own = Object.entries(tools ?? {}).map(([name, one]) => described(name, one));
  const body: Record<string, unknown> = { code, ...rest, on_disconnect: signal ? "interrupt" : "continue" };
  if (tools || serverTools) body["tools"] = [...(serverTools ?? []), ...own];
  if (files) {
    body["files"] = Object.fromEntries(
      Object.entries(files).map(([path, one]) => [path, typeof one === "string" ? one : { base64: base64(one) }]),
    );
  }
  return body;
}

function described(name: string, tool: ClientTool): Record<string, unknown> {
  return { name, description: tool.description ?? "", parameters: tool.parameters };
}

function base64(bytes: Uint8Array): string {
  let text = "";
  // In pieces: the arguments of a call are limited.
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}
