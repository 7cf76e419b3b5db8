/** One execution, followed to its end: over connections that break, and over calls of this program's tools. */

import { OnehopError, UnreachableError } from "./errors.js";
import { events, type Http, type RawEvent } from "./http.js";
import type { Answer, ClientTool, Event, Output, ToolCall } from "./types.js";

const TRIES = 6;
const PAUSE_MS = 200;

export interface Listeners {
  onStdout?: (text: string) => void;
  onStderr?: (text: string) => void;
  onResult?: (output: Output) => void;
}

/** The outcome of an execution, with shortcuts. */
export class Result {
  constructor(readonly answer: Answer) {}

  get ok(): boolean {
    return this.answer.status === "ok";
  }

  get status(): Answer["status"] {
    return this.answer.status;
  }

  get stdout(): string {
    return this.answer.stdout;
  }

  get stderr(): string {
    return this.answer.stderr;
  }

  /** The value of the last expression as text, or undefined. */
  get text(): string | undefined {
    return this.answer.results.at(-1)?.["text/plain"];
  }

  get results(): Output[] {
    return this.answer.results;
  }

  get error(): Answer["error"] {
    return this.answer.error;
  }

  get files(): Answer["files"] {
    return this.answer.files;
  }

  /** Pictures that were shown, in base64. */
  get pictures(): { mediaType: string; data: string }[] {
    return this.answer.results.flatMap((one) =>
      ["image/png", "image/jpeg"].flatMap((mediaType) => (one[mediaType] ? [{ mediaType, data: one[mediaType] }] : [])),
    );
  }

  /** This, or throws when the code did not end by itself without an error. */
  orThrow(): this {
    if (this.ok) return this;
    const { error, status, reason } = this.answer;
    throw new OnehopError(200, `execution-${status}`, error ? error.traceback : `${status}: ${reason}`);
  }
}

/** Starts an execution and gives its events; tools of this program are called when the code calls them. */
export async function* follow(
  http: Http,
  path: string,
  body: Record<string, unknown>,
  tools: Record<string, ClientTool>,
  signal?: AbortSignal,
): AsyncGenerator<Event> {
  const headers = { accept: "text/event-stream", "idempotency-key": crypto.randomUUID() };
  let source = await start(() => http.send("POST", path, { json: body, headers, signal }));
  const execution = source.headers.get("onehop-execution-id") ?? "";
  let last = 0;
  for (let broken = 0; ; ) {
    let waiting: ToolCall[] | undefined;
    try {
      for await (const raw of events(source)) {
        last = raw.id;
        broken = 0;
        const event = read(raw);
        yield event;
        if (event.kind === "end") return;
        waiting = event.kind === "tool_call_required" ? event.calls : undefined;
      }
    } catch (error) {
      if (signal?.aborted || error instanceof OnehopError) throw error;
    }
    const ours = waiting?.filter((call) => call.needs !== "approval" && tools[call.name]);
    if (waiting && !ours?.length) return; // somebody else has to answer
    if (ours?.length) {
      const results = await Promise.all(ours.map((call) => outcome(call, tools)));
      const given = { json: { results }, headers: { ...headers, "idempotency-key": crypto.randomUUID() }, signal };
      source = await start(() => http.send("POST", `/api/executions/${execution}/tool_results`, given));
      continue;
    }
    if (++broken >= TRIES) throw new UnreachableError("the connection broke, and could not be made again");
    await new Promise((resume) => setTimeout(resume, PAUSE_MS * broken));
    const again = { headers: { accept: "text/event-stream", "last-event-id": String(last) }, signal };
    source = await start(() => http.send("GET", `/api/executions/${execution}/events`, again));
  }
}

/** Asks again while nobody answers: the key of the request says that it is the same. */
async function start(ask: () => Promise<Response>): Promise<Response> {
  for (let tries = 1; ; tries++) {
    try {
      return await ask();
    } catch (error) {
      if (!(error instanceof UnreachableError) || tries >= TRIES) throw error;
      await new Promise((resume) => setTimeout(resume, PAUSE_MS * tries));
    }
  }
}

async function outcome(call: ToolCall, tools: Record<string, ClientTool>): Promise<Record<string, unknown>> {
  try {
    const value = await tools[call.name]!.execute((call.arguments ?? {}) as never);
    return { id: call.id, result: value === undefined ? null : value };
  } catch (error) {
    return { id: call.id, error: error instanceof Error ? `${error.name}: ${error.message}` : String(error) };
  }
}

function read(raw: RawEvent): Event {
  const data = JSON.parse(raw.data);
  switch (raw.event) {
    case "stdout":
    case "stderr":
      return { number: raw.id, kind: raw.event, text: data.text };
    case "result":
      return { number: raw.id, kind: "result", data: data.data, final: data.final };
    case "error":
      return { number: raw.id, kind: "error", error: data };
    case "tool_call_required":
      return { number: raw.id, kind: "tool_call_required", calls: data.tool_calls };
    case "end":
      return { number: raw.id, kind: "end", answer: data };
    default:
      return { number: raw.id, kind: "other", name: raw.event, data };
  }
}

/** The whole outcome from its events. */
export async function collect(source: AsyncGenerator<Event>, listeners: Listeners): Promise<Result> {
  const parts = { stdout: "", stderr: "", results: [] as Output[], error: null as Answer["error"] };
  let pending: ToolCall[] = [];
  for await (const event of source) {
    if (event.kind === "stdout" || event.kind === "stderr") {
      parts[event.kind] += event.text;
      (event.kind === "stdout" ? listeners.onStdout : listeners.onStderr)?.(event.text);
    } else if (event.kind === "result") {
      parts.results.push(event.data);
      listeners.onResult?.(event.data);
    } else if (event.kind === "error") {
      parts.error = event.error;
    } else if (event.kind === "tool_call_required") {
      pending = event.calls;
    } else if (event.kind === "end") {
      return new Result({ ...event.answer, ...parts });
    }
  }
  return new Result({
    ...parts, id: "", session: null, status: "tool_call_required", files: [], files_truncated: false, tool_calls: pending,
    usage: null, truncated: false, output_file: null, variables: "kept", reason: "a call waits for an answer",
  });
}
