// QuickJS has no console: this one prints to the provider's log, and only in calls.

import stdout from "wasi:cli/stdout@0.2.6";
import { utf8 } from "./text.js";

// WASI takes no more at once.
const MOST = 4096;

function print(...values) {
  const bytes = utf8(`${values.map(shown).join(" ")}\n`);
  const stream = stdout.getStdout();
  for (let at = 0; at < bytes.length; at += MOST) stream.blockingWriteAndFlush(bytes.slice(at, at + MOST));
}

function shown(value) {
  if (typeof value === "string") return value;
  if (value instanceof Error) return `${value}\n${value.stack}`;
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value);
  }
}

globalThis.console = { debug: print, log: print, info: print, warn: print, error: print };
