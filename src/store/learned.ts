/**
 * What operators taught, on all nodes: one shared cell for each message, by its fingerprint, with
 * the tokens of the message and the label that it was given last. The counts that inspectors use
 * are derived from these cells on each node, so equal samples are equal counts, in whatever order
 * they came; and forgetting a sample leaves what was before it.
 */
import { mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { and, asc, count, eq, gt, lt } from 'drizzle-orm'
import type { Clock, Timer } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import { removeFile } from '../base/files.ts'
import type { Observer } from '../base/observe.ts'
import { headInForce, type SharedState } from '../config/merge.ts'
import { wallMsOf } from '../config/stamp.ts'
import {
  type Counts,
  type Label,
  readSample,
  SAMPLE_VERSION,
  writeSample,
} from '../message/learned.ts'
import type { StoreDatabase } from './db.ts'
import { LearnedTable, type Learnt } from './learned-table.ts'
import type { SharedRows } from './shared.ts'
import { samples } from './tables.ts'

export const SAMPLE_KIND = 'sample'

const DAY_MS = 86_400_000
const HOUR_MS = 3_600_000
/** Mail changes: what is older says little. */
const KEPT_MS = 180 * DAY_MS
/** Of each class, the newest. */
const CLASS_MAX = 50_000
/** A campaign is over sooner. */
const KNOWN_MS = 90 * DAY_MS
/** Samples that are counted before the loop goes on: about 5 ms. */
const SLICE = 50
/** Samples that one run of the retention forgets. */
const RETIRED_MAX = 2_000
/** Children that were told the former file have opened it by then. */
const FORMER_MS = 60_000

export class Learned {
  readonly #store: StoreDatabase
  readonly #rows: SharedRows
  readonly #clock: Clock
  readonly #observer: Observer
  readonly #directory: string
  /** What a commit under way found before it, by fingerprint; the first state of each. */
  readonly #before = new Map<string, SharedState | null>()
  #table: LearnedTable
  /** Until when each is known when it changes. */
  readonly #knownUntil = new Map<string, number>()
  /** Samples up to here are in the table; null: all of them. */
  #counted: string | null = ''
  #path: string | null = null
  #files = 0
  readonly #timers = new Set<Timer>()
  #isClosed = false

  /** Before the rows are started; then `start`. `directory`: of the file of counts alone. */
  constructor(
    store: StoreDatabase,
    rows: SharedRows,
    deps: { readonly clock: Clock; readonly observer: Observer; readonly directory: string },
  ) {
    this.#store = store
    this.#rows = rows
    this.#clock = deps.clock
    this.#observer = deps.observer
    this.#directory = deps.directory
    this.#table = this.#newTable()
    rows.project(SAMPLE_KIND, {
      version: 1,
      clear: () => store.query.delete(samples).run(),
      apply: (key, state, before) => this.#apply(key, state, before),
      forget: (key) => this.#forgotten(key),
    })
    rows.onChange(SAMPLE_KIND, ({ keys }) => this.#committed(keys))
  }

  /**
   * Counts everything anew, in slices, after the rows were started. Until that is done the file of
   * the run before is in use.
   */
  start(): void {
    mkdirSync(this.#directory, { recursive: true, mode: 0o700 })
    const names = readdirSync(this.#directory).filter((name) => NAME.test(name))
    const numbers = names.map((name) => Number(NAME.exec(name)?.[1])).sort((a, b) => a - b)
    this.#files = numbers.at(-1) ?? 0
    for (const number of numbers.slice(0, -1)) removeFile(join(this.#directory, nameOf(number)))
    if (numbers.length > 0) this.#path = join(this.#directory, nameOf(this.#files))
    this.#recount()
    this.#later(HOUR_MS, () => this.#hourly())
  }

  close(): void {
    this.#isClosed = true
    for (const timer of this.#timers) timer.cancel()
    this.#table.close()
  }

  /** The file of counts for inspectors; null: nothing was learnt yet. */
  get path(): string | null {
    return this.#path
  }

  /** Everything that was learnt is counted. */
  get isCounted(): boolean {
    return this.#counted === null
  }

  counts(): Counts {
    const of = (label: Label): number =>
      this.#store.query.select({ n: count() }).from(samples).where(eq(samples.label, label)).get()
        ?.n ?? 0
    return this.#store.attempt(() => ({ spam: of('spam'), ham: of('ham') }))
  }

  /** As what it was learnt; null: it was not. @throws StoreError */
  labelOf(fingerprint: string): Label | null {
    return learntOf(fingerprint, this.#rows.cell(SAMPLE_KIND, fingerprint))?.label ?? null
  }

  /**
   * Learns a message, or learns it anew with another label. Durable, and counted here, when it
   * returns. False: it stands so already. @throws StoreError
   */
  learn(author: string, learnt: Learnt): boolean {
    const { sample, label, domain } = learnt
    const known = learntOf(sample.fingerprint, this.#rows.cell(SAMPLE_KIND, sample.fingerprint))
    if (known?.label === label && known.domain === domain) return false
    this.#rows.transact(() => {
      this.#rows.write(SAMPLE_KIND, sample.fingerprint, textOf(learnt), author)
      const full = this.#oldest(label, Number.MAX_SAFE_INTEGER, this.counts()[label] - CLASS_MAX)
      for (const fingerprint of full) this.#rows.write(SAMPLE_KIND, fingerprint, null, 'postern')
    })
    return true
  }

  /** False: it was not learnt. @throws StoreError */
  forget(author: string, fingerprint: string): boolean {
    if (this.labelOf(fingerprint) === null) return false
    this.#rows.write(SAMPLE_KIND, fingerprint, null, author)
    return true
  }

  /** Forgets what is too old or too much, on one node for all. Gives how many. @throws StoreError */
  retire(): number {
    const until = this.#clock.wallMs() - KEPT_MS
    const counts = this.counts()
    const gone = (['spam', 'ham'] as const).flatMap((label) => [
      ...new Set([
        ...this.#oldest(label, until, RETIRED_MAX),
        ...this.#oldest(
          label,
          Number.MAX_SAFE_INTEGER,
          Math.min(RETIRED_MAX, counts[label] - CLASS_MAX),
        ),
      ]),
    ])
    this.#rows.transact(() => {
      for (const fingerprint of gone) this.#rows.write(SAMPLE_KIND, fingerprint, null, 'postern')
    })
    return gone.length
  }

  /** All counts as text, for comparing: equal for equal samples. */
  dump(): string {
    return this.#table.dump()
  }

  #oldest(label: Label, beforeMs: number, most: number): readonly string[] {
    if (most <= 0) return []
    return this.#store
      .attempt(() =>
        this.#store.query
          .select({ fingerprint: samples.fingerprint })
          .from(samples)
          .where(and(eq(samples.label, label), lt(samples.learntMs, beforeMs)))
          .orderBy(asc(samples.learntMs), asc(samples.fingerprint))
          .limit(most)
          .all(),
      )
      .map(({ fingerprint }) => fingerprint)
  }

  /** Inside the transaction: only its own table, which is undone with it. */
  #apply(fingerprint: string, state: SharedState, before: SharedState | null): void {
    if (!this.#before.has(fingerprint)) this.#before.set(fingerprint, before)
    const learnt = learntOf(fingerprint, state)
    const { query } = this.#store
    if (learnt === null) {
      query.delete(samples).where(eq(samples.fingerprint, fingerprint)).run()
      return
    }
    const row = { label: learnt.label, learntMs: learntMsOf(state) }
    query
      .insert(samples)
      .values({ fingerprint, ...row })
      .onConflictDoUpdate({ target: samples.fingerprint, set: row })
      .run()
  }

  #forgotten(fingerprint: string): void {
    const { query } = this.#store
    const gone = query.delete(samples).where(eq(samples.fingerprint, fingerprint)).returning().all()
    // A tombstone counts nothing. That a living row goes happens to a node that joins others.
    if (gone.length > 0) this.#counted = ''
    this.#before.delete(fingerprint)
  }

  /**
   * After the commit. What a transaction that failed left in `#before` is still what was before:
   * nothing of that message was committed since, or it would have been taken out here.
   */
  #committed(fingerprints: readonly string[]): void {
    if (this.#isClosed) return
    for (const fingerprint of fingerprints) {
      const before = this.#before.get(fingerprint)
      this.#before.delete(fingerprint)
      if (before === undefined || (this.#counted !== null && fingerprint > this.#counted)) continue
      const was = learntOf(fingerprint, before)
      if (was !== null) this.#count(was, -1, before)
      const cell = this.#rows.cell(SAMPLE_KIND, fingerprint)
      const is = learntOf(fingerprint, cell)
      if (is !== null) this.#count(is, 1, cell)
    }
    if (this.#counted === null) this.#flush()
    else if (this.#counted === '') this.#recount()
  }

  #count(learnt: Learnt, step: 1 | -1, state: SharedState | null): void {
    const { fingerprint } = learnt.sample
    this.#table.count(learnt, step)
    if (step === -1) {
      this.#table.unknow(fingerprint)
      this.#knownUntil.delete(fingerprint)
      return
    }
    const untilMs = (state === null ? 0 : learntMsOf(state)) + KNOWN_MS
    if (untilMs <= this.#clock.wallMs()) return
    this.#table.know(learnt)
    this.#knownUntil.set(fingerprint, untilMs)
  }

  #recount(): void {
    this.#table.close()
    this.#table = this.#newTable()
    this.#knownUntil.clear()
    this.#counted = ''
    this.#slice()
  }

  #slice(): void {
    const table = this.#table
    const from = this.#counted ?? ''
    const rows = this.#store.attempt(() =>
      this.#store.query
        .select({ fingerprint: samples.fingerprint })
        .from(samples)
        .where(gt(samples.fingerprint, from))
        .orderBy(asc(samples.fingerprint))
        .limit(SLICE)
        .all(),
    )
    for (const { fingerprint } of rows) {
      const cell = this.#rows.cell(SAMPLE_KIND, fingerprint)
      const learnt = learntOf(fingerprint, cell)
      if (learnt !== null) this.#count(learnt, 1, cell)
      this.#counted = fingerprint
    }
    if (rows.length < SLICE) {
      this.#counted = null
      this.#flush()
      return
    }
    this.#later(0, () => {
      // Another count began meanwhile.
      if (this.#table === table) this.#slice()
    })
  }

  /** A disk that refuses leaves the inspectors the counts of before; the next change tries again. */
  #flush(): void {
    const { spam, ham } = this.#table.samples
    // A node that was never taught has no file, and its inspectors nothing to look up.
    if (this.#path === null && spam === 0 && ham === 0) return
    try {
      const used = this.#path
      this.#table.flush()
      this.#path = this.#table.path
      if (used !== null && used !== this.#path) this.#later(FORMER_MS, () => removeFile(used))
    } catch (error) {
      this.#observer.emit('store.failed', { cause: `what was learnt: ${messageOf(error)}` })
    }
  }

  /** Campaigns that are over. */
  #hourly(): void {
    this.#later(HOUR_MS, () => this.#hourly())
    const nowMs = this.#clock.wallMs()
    const over = [...this.#knownUntil].filter(([, untilMs]) => untilMs <= nowMs)
    for (const [fingerprint] of over) {
      this.#table.unknow(fingerprint)
      this.#knownUntil.delete(fingerprint)
    }
    if (over.length > 0 && this.#counted === null) this.#flush()
  }

  #newTable(): LearnedTable {
    return new LearnedTable(this.#directory, () => {
      this.#files += 1
      return nameOf(this.#files)
    })
  }

  #later(delayMs: number, run: () => void): void {
    const timer = this.#clock.after(delayMs, () => {
      this.#timers.delete(timer)
      if (!this.#isClosed) run()
    })
    this.#timers.add(timer)
  }
}

const NAME = /^counts-(\d{1,9})$/

function nameOf(number: number): string {
  return `counts-${number}`
}

function learntMsOf(state: SharedState): number {
  return state.shape === 'cell' ? wallMsOf(headInForce(state, 'latest').stamp) : 0
}

/** The value of a cell; the fingerprint is its key. */
function textOf({ sample, label, domain }: Learnt): string {
  const { fingerprint: _, ...rest } = writeSample(sample)
  return JSON.stringify({ label, domain, version: SAMPLE_VERSION, ...rest })
}

/** Null: deleted, of a version that this one does not count, or nothing that a node wrote. */
function learntOf(fingerprint: string, state: SharedState | null): Learnt | null {
  if (state === null || state.shape !== 'cell') return null
  const { value } = headInForce(state, 'latest')
  if (value === null) return null
  const raw = parse(value)
  const { label, domain } = raw
  if (raw['version'] !== SAMPLE_VERSION || (label !== 'spam' && label !== 'ham')) return null
  const sample = readSample({ ...raw, fingerprint })
  if (sample === null) return null
  const isDomain = typeof domain === 'string' && domain.length <= 253
  return { label, domain: isDomain ? domain : null, sample }
}

function parse(text: string): Readonly<Record<string, unknown>> {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}
