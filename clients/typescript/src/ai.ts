/** Python as a tool of the AI SDK (6 and 7): `generateText({ tools: onehopTools(session), … })`. */

import { jsonSchema, tool } from "ai";

import type { Result } from "./execution.js";
import type { Session } from "./index.js";

export interface ToolOptions {
  /** Seconds that a call may take; the server's default when left out. */
  timeout_s?: number;
  /** A shell beside Python: the tool `shell`. */
  shell?: boolean;
}

/** What a call gives: `text` is for the model, everything else for the program, such as pictures to show. */
export interface ToolOutput {
  text: string;
  status: string;
  pictures: { mediaType: string; data: string }[];
  files: { path: string; bytes: number }[];
}

/** Tools that run in a session: variables and files of earlier calls are there. */
export function onehopTools(session: Session, options: ToolOptions = {}) {
  const limits = options.timeout_s === undefined ? {} : { timeout_s: options.timeout_s };
  const python = tool({
    description:
      "Runs Python in a sandbox with pandas, numpy and matplotlib. Variables, imports and files of earlier calls are " +
      "there. Shows what the code prints, the value of its last line and its error if it fails; figures are shown to " +
      "the user.",
    inputSchema: jsonSchema<{ code: string }>(object("code", "Python source.")),
    execute: async ({ code }, { abortSignal }): Promise<ToolOutput> =>
      output(await session.run(code, { ...limits, ...(abortSignal ? { signal: abortSignal } : {}) })),
    toModelOutput: ({ output }) => ({ type: "text" as const, value: output.text }),
  });
  const shell = tool({
    description: "Runs a command with bash in the sandbox where the Python code runs.",
    inputSchema: jsonSchema<{ command: string }>(object("command", "For bash -c.")),
    execute: async ({ command }, { abortSignal }): Promise<ToolOutput> =>
      output(await session.command(command, { ...limits, ...(abortSignal ? { signal: abortSignal } : {}) })),
    toModelOutput: ({ output }) => ({ type: "text" as const, value: output.text }),
  });
  return options.shell ? { python, shell } : { python };
}

function object(name: string, description: string) {
  return {
    type: "object" as const,
    properties: { [name]: { type: "string" as const, description } },
    required: [name],
    additionalProperties: false,
  };
}

function output(result: Result): ToolOutput {
  const { answer } = result;
  const parts = [answer.stdout, answer.stderr, ...answer.results.map((one) => one["text/plain"] ?? "")];
  if (answer.error) parts.push(answer.error.traceback);
  if (answer.status !== "ok" && answer.status !== "error") parts.push(`${answer.status}: ${answer.reason}`);
  if (answer.exit_code) parts.push(`exit status ${answer.exit_code}`);
  const text = parts.map((part) => part.replace(/\n+$/, "")).filter(Boolean).join("\n");
  return {
    text: text || "(it ran and showed nothing)",
    status: answer.status,
    pictures: result.pictures,
    files: answer.files.map(({ path, bytes }) => ({ path, bytes })),
  };
}
