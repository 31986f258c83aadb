/** Time as a dependency. Nothing outside this file reads the system clock or sets a timer. */
import { dlopen, FFIType } from 'bun:ffi'

/** A pending timer; cancelling twice is harmless. */
export interface Timer {
  cancel(): void
}

export interface Clock {
  /** Wall time in ms since the Unix epoch, UTC. May jump backwards. For stamps and logs. */
  wallMs(): number
  /** Monotonic time in ms, since an arbitrary point. Never goes backwards. For waits. */
  monoMs(): number
  /** As `monoMs`, but goes on while the machine sleeps (CLOCK_BOOTTIME). For who may have acted meanwhile. */
  bootMs(): number
  /** Calls `run` once after `delayMs` (>= 0). */
  after(delayMs: number, run: () => void): Timer
}

/** Longest delay that a timer takes before it overflows to "at once": 2^31 - 1 ms. */
const TIMER_MS_MAX = 0x7fff_ffff

export class SystemClock implements Clock {
  wallMs(): number {
    return Date.now()
  }

  monoMs(): number {
    return performance.now()
  }

  bootMs(): number {
    return bootTimeMs() ?? performance.now()
  }

  after(delayMs: number, run: () => void): Timer {
    const handle = setTimeout(run, Math.min(Math.max(0, delayMs), TIMER_MS_MAX))
    return { cancel: () => clearTimeout(handle) }
  }
}

/** Linux, clock_gettime(2). */
const CLOCK_BOOTTIME = 7
let readBootTime: (() => number) | null | undefined

/** Null without a C library that knows it. */
function bootTimeMs(): number | null {
  readBootTime ??= openBootTime()
  return readBootTime?.() ?? null
}

function openBootTime(): (() => number) | null {
  const symbols = {
    clock_gettime: { args: [FFIType.i32, FFIType.ptr], returns: FFIType.i32 },
  } as const
  for (const name of ['libc.so.6', 'libc.so']) {
    try {
      // Never closed: the library is in the process anyway.
      const { clock_gettime: read } = dlopen(name, symbols).symbols
      const time = new BigInt64Array(2)
      return () => {
        read(CLOCK_BOOTTIME, time)
        return Number(time[0]) * 1_000 + Number(time[1]) / 1_000_000
      }
    } catch {
      // The other name of the C library.
    }
  }
  return null
}

/** Resolves after `delayMs`; never rejects. */
export function pause(clock: Clock, delayMs: number): Promise<void> {
  return new Promise((resolve) => clock.after(delayMs, resolve))
}

/** `answer`, or a rejection with `late` when that takes longer than `ms`; it is not ended then. */
export function within<Result>(
  clock: Clock,
  ms: number,
  answer: Promise<Result>,
  late: () => Error = () => new Error('no answer in time'),
): Promise<Result> {
  return new Promise((resolve, reject) => {
    const timer = clock.after(ms, () => reject(late()))
    answer.then(resolve, reject).finally(() => timer.cancel())
  })
}

/** When it was `mono` by the monotonic clock, wall time in whole ms: rows and pages take no fractions. */
export function wallOf(clock: Clock, mono: number): number {
  return Math.round(clock.wallMs() - (clock.monoMs() - mono))
}

/** ISO 8601 UTC with ms, as the API and the command line print times. */
export function isoTime(wallMs: number): string {
  return new Date(wallMs).toISOString()
}

/** The Date that foreign libraries ask for. */
export function dateOf(wallMs: number): Date {
  return new Date(wallMs)
}
