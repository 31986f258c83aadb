/**
 * The one clock and the one order of everything that happens in a simulation. Events run by time,
 * then by the order in which they were planned; after each of them the microtasks run dry. The
 * same seed gives the same events, and their hash says so.
 */
import { drainMicrotasks } from 'bun:jsc'
import type { Clock, Timer } from '../../src/base/clock.ts'
import { Dice, hashText } from './dice.ts'

/** Wall time of every simulation's beginning. */
const EPOCH_MS = Date.UTC(2026, 10, 22, 12)

/** The shortest wait of a timer. */
const TICK_MS = 0.001
/** Of all nodes together: a cluster that does more has lost itself in a loop. */
const EVENTS_A_SECOND_MAX = 2_000_000

type Planned = {
  atMs: number
  order: number
  readonly process: SimProcess | null
  readonly run: () => void
  isCancelled: boolean
}

/** A rule of the cluster that did not hold; ends the simulation. */
export class ViolationError extends Error {
  override name = 'ViolationError'
}

/** Whatever ends a simulation names its seed, not only a rule. @throws what `run` throws, with it */
export function ofSeed<Result>(seed: number, run: () => Result): Result {
  try {
    return run()
  } catch (thrown) {
    const error = thrown instanceof Error ? thrown : new Error(String(thrown))
    const name = `SIM_SEED=${seed}`
    if (!error.message.startsWith(name)) error.message = `${name}: ${error.message}`
    throw error
  }
}

export class World {
  readonly seed: number
  readonly dice: Dice
  /** True time in ms since the beginning. */
  nowMs = 0
  events = 0
  /** How often each rare thing was seen: what `sometimes` counts. */
  readonly seen = new Map<string, number>()
  readonly story: string[] = []
  /** Somebody wants the story. */
  readonly isTold: boolean
  readonly #heap: Planned[] = []
  #order = 0
  #busySecond = 0
  #busyEvents = 0
  #hash = 0x811c_9dc5
  #violation: ViolationError | null = null

  constructor(seed: number, isTold = false) {
    this.seed = seed
    this.dice = new Dice(seed)
    this.isTold = isTold
  }

  /** Equal for two runs of one seed. */
  get hash(): string {
    return `${this.events}-${this.#hash.toString(16).padStart(8, '0')}`
  }

  /** Runs `run` after `delayMs` of true time, unless the process has ended by then. */
  after(delayMs: number, run: () => void, process: SimProcess | null = null): Timer {
    if (!Number.isFinite(delayMs)) throw new Error(`a timer of ${delayMs} ms`)
    this.#order += 1
    const planned: Planned = {
      atMs: this.nowMs + Math.max(0, delayMs),
      order: this.#order,
      process,
      run,
      isCancelled: false,
    }
    this.#push(planned)
    return {
      cancel: () => {
        planned.isCancelled = true
      },
    }
  }

  /** Runs what is due up to `untilMs`. @throws ViolationError, or what a callback threw as one */
  runUntil(untilMs: number): void {
    for (;;) {
      const next = this.#heap[0]
      if (next === undefined || next.atMs > untilMs) break
      this.#pop()
      this.#run(next)
    }
    this.nowMs = Math.max(this.nowMs, untilMs)
  }

  runFor(ms: number): void {
    this.runUntil(this.nowMs + ms)
  }

  /** Runs until `isDone` holds, asked every `stepMs`; false when it does not within `limitMs`. */
  runTill(isDone: () => boolean, limitMs: number, stepMs = 100): boolean {
    const endMs = this.nowMs + limitMs
    while (!isDone()) {
      if (this.nowMs >= endMs) return false
      this.runFor(Math.min(stepMs, endMs - this.nowMs))
    }
    return true
  }

  /** Calls `act` as an event of its own, now: what a person or a fault does. */
  act<Result>(act: () => Result): Result {
    const result = act()
    drainMicrotasks()
    this.#check()
    return result
  }

  /** Runs the world until the promise is settled. @throws what it rejects with */
  wait<Result>(promise: Promise<Result>, limitMs = 60_000): Result {
    let settled: { readonly value: Result } | { readonly error: unknown } | null = null
    promise.then(
      (value) => {
        settled = { value }
      },
      (error: unknown) => {
        settled = { error }
      },
    )
    drainMicrotasks()
    const isDone = this.runTill(() => settled !== null, limitMs, 1)
    const end = settled as { readonly value: Result } | { readonly error: unknown } | null
    if (!isDone || end === null) throw new Error(`nothing came of it within ${limitMs} ms`)
    if ('error' in end) throw end.error
    return end.value
  }

  /** A rule is broken: the simulation ends after this event. */
  violate(rule: string): void {
    this.#violation ??= new ViolationError(`SIM_SEED=${this.seed} at ${this.#time()}: ${rule}`)
  }

  /** Something that must happen in some seeds, or the seeds prove nothing. */
  sometimes(what: string): void {
    this.seen.set(what, (this.seen.get(what) ?? 0) + 1)
  }

  /** Adds to the hash of the events. */
  note(what: string | number): void {
    this.#hash =
      typeof what === 'string'
        ? hashText(what, this.#hash)
        : Math.imul(this.#hash ^ (what >>> 0), 0x0100_0193) >>> 0
  }

  tell(line: () => string): void {
    if (this.isTold) this.story.push(`${this.#time()} ${line()}`)
  }

  #time(): string {
    return `${(this.nowMs / 1000).toFixed(3).padStart(9)} s`
  }

  #run(next: Planned): void {
    this.nowMs = Math.max(this.nowMs, next.atMs)
    if (next.isCancelled) return
    const { process } = next
    if (process !== null) {
      if (!process.isAlive) return
      if (process.stalledUntilMs > this.nowMs) {
        // The event loop is blocked: what is due waits its turn behind it.
        this.#order += 1
        next.atMs = process.stalledUntilMs
        next.order = this.#order
        this.#push(next)
        return
      }
    }
    this.events += 1
    this.#countBusy()
    this.note(Math.round(this.nowMs * 1024))
    this.note(process?.number ?? 0)
    try {
      next.run()
      drainMicrotasks()
    } catch (error) {
      if (error instanceof ViolationError) throw error
      const cause = error instanceof Error ? (error.stack ?? error.message) : String(error)
      this.violate(`a callback of ${process?.name ?? 'the world'} threw: ${cause}`)
    }
    this.#check()
  }

  /** Whoever plans one event after the other at once would never let the time go on. */
  #countBusy(): void {
    const second = Math.floor(this.nowMs / 1_000)
    if (second !== this.#busySecond) {
      this.#busySecond = second
      this.#busyEvents = 0
    }
    this.#busyEvents += 1
    if (this.#busyEvents > EVENTS_A_SECOND_MAX) this.violate('the world is busy with itself')
  }

  #check(): void {
    if (this.#violation !== null) throw this.#violation
  }

  #push(planned: Planned): void {
    const heap = this.#heap
    let at = heap.length
    heap.push(planned)
    while (at > 0) {
      const above = (at - 1) >> 1
      const parent = heap[above] as Planned
      if (isBefore(parent, planned)) break
      heap[at] = parent
      at = above
    }
    heap[at] = planned
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let at = 0
    for (;;) {
      let below = 2 * at + 1
      if (below >= heap.length) break
      const right = heap[below + 1]
      if (right !== undefined && isBefore(right, heap[below] as Planned)) below += 1
      const child = heap[below] as Planned
      if (isBefore(last, child)) break
      heap[at] = child
      at = below
    }
    heap[at] = last
  }
}

function isBefore(a: Planned, b: Planned): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)
}

/** One run of one node: its timers and what the network brings die with it. */
export class SimProcess {
  readonly name: string
  readonly number: number
  isAlive = true
  /** True ms at which it was killed. */
  endedMs: number | null = null
  stalledUntilMs = 0

  constructor(name: string, number: number) {
    this.name = name
    this.number = number
  }
}

/** The clocks of one machine: they outlive its processes. */
export type MachineTime = {
  /** Wall time less true time, ms. */
  skewMs: number
  /** How much faster than true time, in parts per million. */
  readonly driftPpm: number
  /** How long it has slept: its monotonic clock stood still, its boot clock went on. */
  asleepMs?: number
}

/** The time as one process sees it. */
export class SimClock implements Clock {
  readonly #world: World
  readonly #process: SimProcess
  readonly #time: MachineTime
  readonly #rate: number

  constructor(world: World, process: SimProcess, time: MachineTime) {
    this.#world = world
    this.#process = process
    this.#time = time
    this.#rate = 1 + time.driftPpm / 1_000_000
  }

  wallMs(): number {
    return Math.floor(EPOCH_MS + this.#world.nowMs * this.#rate + this.#time.skewMs)
  }

  monoMs(): number {
    return (this.#world.nowMs - (this.#time.asleepMs ?? 0)) * this.#rate
  }

  bootMs(): number {
    return this.#world.nowMs * this.#rate
  }

  after(delayMs: number, run: () => void): Timer {
    // A clock that is asked for a part of its last digit never gets there.
    const leastMs = delayMs > 0 ? Math.max(delayMs, TICK_MS) : 0
    return this.#world.after(leastMs / this.#rate, run, this.#process)
  }
}
