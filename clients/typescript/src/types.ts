/** The API's documents, as they travel. Times are RFC 3339 in UTC. */

export type Status =
  | "ok"
  | "error"
  | "timeout"
  | "out_of_memory"
  | "output_limit"
  | "interrupted"
  | "killed"
  | "kernel_died"
  | "protocol_error"
  | "outcome_unknown"
  | "running"
  | "tool_call_required";

/** Something displayed: MIME type → text, binary types in base64. */
export type Output = Readonly<Record<string, string>>;

/** What the code raised. */
export interface ErrorInfo {
  name: string;
  value: string;
  traceback: string;
}

/** A file of the workspace; `modified_at` in listings. */
export interface FileInfo {
  path: string;
  bytes: number;
  modified_at?: string;
}

/** A call of a tool; `arguments` of those that wait for the client. */
export interface ToolCall {
  id: string;
  name: string;
  status: "pending" | "running" | "ok" | "error" | "denied" | "abandoned" | "outcome_unknown";
  arguments?: Record<string, unknown>;
  needs?: "result" | "approval" | null;
  error?: string;
  ms?: number;
}

/** Measured from outside of the sandbox; -1 where the machine cannot tell. */
export interface Usage {
  wall_ms: number;
  cpu_ms: number;
  peak_memory_bytes: number;
}

/** The outcome of an execution. */
export interface Answer {
  id: string;
  session: string | null;
  status: Status;
  stdout: string;
  stderr: string;
  results: Output[];
  error: ErrorInfo | null;
  files: FileInfo[];
  files_truncated: boolean;
  tool_calls: ToolCall[];
  usage: Usage | null;
  truncated: boolean;
  output_file: { path: string; bytes: number } | null;
  variables: "kept" | "lost";
  reason: string;
  /** Of a command, and of nothing else. */
  exit_code?: number | null;
}

/** What happens while code runs, in order. */
export type Event =
  | { number: number; kind: "stdout" | "stderr"; text: string }
  | { number: number; kind: "result"; data: Output; final: boolean }
  | { number: number; kind: "error"; error: ErrorInfo }
  | { number: number; kind: "tool_call_required"; calls: ToolCall[] }
  | { number: number; kind: "end"; answer: Omit<Answer, "stdout" | "stderr" | "results" | "error"> }
  | { number: number; kind: "other"; name: string; data: unknown };

export interface SessionInfo {
  id: string;
  status: "idle" | "busy";
  environment: string;
  created_at: string;
  expires_at: string;
  idle_timeout_s: number;
  max_age_s: number;
  pinned: boolean;
  metadata: Record<string, string>;
  env: string[];
  executions: string[];
  limits: { memory_mb: number; processes: number; workspace_mb: number; workspace_inodes: number };
}

/** What a session may be and use; the server's defaults hold for what is left out. */
export interface SessionOptions {
  environment?: string;
  memory_mb?: number;
  processes?: number;
  workspace_mb?: number;
  idle_timeout_s?: number;
  max_age_s?: number;
  pinned?: boolean;
  metadata?: Record<string, string>;
  env?: Record<string, string>;
  /** Names of tools that the server has. */
  tools?: string[];
  imports?: { allow: string[] } | { deny: string[] };
}

/** A tool of this program's own: the code calls it, it runs here, and the code goes on with what it returns. */
export interface ClientTool {
  description?: string;
  /** A JSON Schema of an object. */
  parameters: Record<string, unknown>;
  execute: (args: never) => unknown;
}

export interface RunOptions {
  context?: string;
  timeout_s?: number;
  cpu_s?: number;
  output_bytes?: number;
  env?: Record<string, string>;
  stdin?: string;
  /** Path in the workspace → text or bytes, written before the code runs. */
  files?: Record<string, string | Uint8Array>;
  /** Functions of this program by name, for the code; see ClientTool. */
  tools?: Record<string, ClientTool>;
  /** Names of the server's tools that the code may call. */
  serverTools?: string[];
  onStdout?: (text: string) => void;
  onStderr?: (text: string) => void;
  onResult?: (output: Output) => void;
  /** Aborting interrupts the code; the variables stay. */
  signal?: AbortSignal;
}

export interface CommandOptions {
  cwd?: string;
  env?: Record<string, string>;
  stdin?: string;
  timeout_s?: number;
  output_bytes?: number;
  onStdout?: (text: string) => void;
  onStderr?: (text: string) => void;
  signal?: AbortSignal;
}
