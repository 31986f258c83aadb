/**
 * Greylisting for all nodes together: who is not known is asked to come again, and may come to any
 * of them. One shared row for each client network, sender and recipient, by a hash of the three.
 *
 * The version of a row is what it says, so that the higher one of two is their join: the first
 * sight that was earlier, that it has passed, the later end. Term: twice the generation, plus 1
 * once it has passed. Revision: while it waits what is left of all time after its first sight; then
 * its end. A generation begins when a row is seen again after its end.
 */
import { isIPv6 } from 'node:net'
import { groupsOf } from '../base/address.ts'
import type { Clock, Timer } from '../base/clock.ts'
import { messageOf, StoreError } from '../base/errors.ts'
import type { Observer } from '../base/observe.ts'
import type { OwnedRow } from '../config/merge.ts'
import type { Settings } from '../config/schema.ts'
import type { SharedRows } from './shared.ts'

export const GREYLIST_KIND = 'greylist'

/** Rows go to the disk and to the peers together, after this. */
const WRITE_MS = 1_000
/** Rows of one such time; whoever is new beyond it passes. */
const FRESH_MAX = 5_000
/** Rows in all, on each node; 300 bytes each. Whoever is new beyond it passes. */
const ROWS_MAX = 100_000
const DAY_MS = 86_400_000
/** An end that is put off by less is not worth a row. */
const REFRESH_MS = DAY_MS

/** As the version says it. */
type Stand = {
  readonly generation: number
  readonly hasPassed: boolean
  /** Wall ms: of the first sight while it waits. */
  readonly firstMs: number
  readonly untilMs: number
}

type Known = Stand & { readonly isKnown: boolean }

/** Settings of `greylist.`, in ms. */
type Times = { readonly delayMs: number; readonly retryMs: number; readonly keepMs: number }

export class Greylist {
  readonly #rows: SharedRows
  readonly #clock: Clock
  readonly #observer: Observer
  /** Not written yet. */
  readonly #fresh = new Map<string, Stand>()
  #timer: Timer | null = null
  #isClosed = false
  /** Null until somebody asks: a node without greylisting counts nothing. */
  #count: number | null = null

  /** Before the rows are started. */
  constructor(rows: SharedRows, deps: { readonly clock: Clock; readonly observer: Observer }) {
    this.#rows = rows
    this.#clock = deps.clock
    this.#observer = deps.observer
    rows.project(GREYLIST_KIND, {
      version: 0,
      clear: () => {
        this.#count = null
      },
      apply: (_key, _state, before) => {
        if (before === null && this.#count !== null) this.#count += 1
      },
      forget: () => {
        if (this.#count !== null) this.#count -= 1
      },
    })
  }

  /**
   * Ms after which it would pass; 0: it does now. Everybody passes while the store cannot take what
   * is new: mail that is only unknown is not lost for that. `also`: by what else than its address
   * the client is known when it comes again from elsewhere; one that passes is enough.
   */
  ask(
    ip: string,
    sender: string,
    recipient: string,
    settings: Settings,
    also: readonly string[] = [],
  ): number {
    return this.askAs([greyNetwork(ip), ...also], sender, recipient, settings)
  }

  /** As `ask`, of a client that is known by any of `names`; at least one. */
  askAs(names: readonly string[], sender: string, recipient: string, settings: Settings): number {
    const times = timesOf(settings)
    const keys = names.map((who) => keyOf(who, sender, recipient))
    const nowMs = this.#clock.wallMs()
    const stands = keys.map((key) => ({ key, stand: this.#standOf(key, nowMs) }))
    const passing = stands.find(({ stand }) => waitOf(stand, nowMs, times) === 0)
    if (passing?.stand !== undefined) {
      this.#pass(passing.key, passing.stand, nowMs, times)
      return 0
    }
    const waits = stands.map(({ key, stand }) =>
      stand.isKnown ? waitOf(stand, nowMs, times) : this.#see(key, stand, nowMs, times),
    )
    return Math.min(...waits)
  }

  /** As it is remembered; a new generation when it is not, or no more. */
  #standOf(key: string, nowMs: number): Known {
    const known = this.#fresh.get(key) ?? standOf(this.#rows.owned(GREYLIST_KIND, key))
    if (known !== null && known.untilMs > nowMs) return { ...known, isKnown: true }
    const generation = known === null ? 0 : known.generation + 1
    return { generation, hasPassed: false, firstMs: nowMs, untilMs: 0, isKnown: false }
  }

  #see(key: string, { generation }: Stand, nowMs: number, times: Times): number {
    const untilMs = Math.round(nowMs + times.delayMs + times.retryMs)
    const isKept = this.#keep(key, { generation, hasPassed: false, firstMs: nowMs, untilMs })
    return isKept ? times.delayMs : 0
  }

  #pass(key: string, known: Stand, nowMs: number, times: Times): void {
    const untilMs = Math.round(nowMs + times.keepMs)
    if (known.hasPassed && untilMs - known.untilMs < REFRESH_MS) return
    const { generation, firstMs } = known
    this.#keep(key, { generation, firstMs, hasPassed: true, untilMs })
  }

  /** Writes what is fresh. */
  close(): void {
    this.#isClosed = true
    this.#timer?.cancel()
    this.#write()
  }

  /** False: there is no room for one more. */
  #keep(key: string, stand: Stand): boolean {
    this.#count ??= this.#rows.list(GREYLIST_KIND).length
    const isNew = !stand.hasPassed
    if (this.#isClosed || (isNew && this.#fresh.size >= FRESH_MAX)) return false
    if (isNew && this.#count + this.#fresh.size >= ROWS_MAX) return false
    this.#fresh.set(key, stand)
    this.#timer ??= this.#clock.after(WRITE_MS, () => {
      this.#timer = null
      this.#write()
    })
    return true
  }

  #write(): void {
    if (this.#fresh.size === 0) return
    try {
      this.#rows.transact(() => {
        for (const [key, stand] of this.#fresh) this.#put(key, stand)
      })
      this.#fresh.clear()
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      this.#observer.emit('store.failed', { cause: messageOf(error) })
      // Bounded by what is fresh; it is tried again.
      if (!this.#isClosed) this.#timer = this.#clock.after(WRITE_MS, () => this.#retry())
    }
  }

  #retry(): void {
    this.#timer = null
    this.#write()
  }

  /** A peer may have said as much meanwhile. */
  #put(key: string, stand: Stand): void {
    const version = versionOf(stand)
    const before = this.#rows.owned(GREYLIST_KIND, key)
    if (before !== null && !isHigher(version, before.version)) return
    this.#rows.put(GREYLIST_KIND, key, version, '1', 'postern', stand.untilMs)
  }
}

/** IPv4 /24, IPv6 /64: large senders come again from a neighbour. */
export function greyNetwork(ip: string): string {
  if (!isIPv6(ip)) return ip.split('.').slice(0, 3).join('.')
  return groupsOf(ip).slice(0, 4).join(':')
}

/** Ms that it still waits. Seen in the future by a node whose clock is ahead: never longer than the delay. */
function waitOf({ isKnown, hasPassed, firstMs }: Known, nowMs: number, times: Times): number {
  if (!isKnown) return times.delayMs
  return hasPassed ? 0 : Math.max(0, times.delayMs - Math.max(0, nowMs - firstMs))
}

function keyOf(who: string, sender: string, recipient: string): string {
  const text = `${who}\n${sender.toLowerCase()}\n${recipient.toLowerCase()}`
  return new Bun.CryptoHasher('sha256').update(text).digest('hex').slice(0, 32)
}

function timesOf(settings: Settings): Times {
  return {
    delayMs: settings['greylist.delay'] * 1_000,
    retryMs: settings['greylist.retry'] * 3_600_000,
    keepMs: settings['greylist.keep'] * DAY_MS,
  }
}

function versionOf({ generation, hasPassed, firstMs, untilMs }: Stand): readonly [number, number] {
  return hasPassed
    ? [2 * generation + 1, untilMs]
    : [2 * generation, Number.MAX_SAFE_INTEGER - Math.round(firstMs)]
}

/** Null: no row, or one that was deleted. */
function standOf(row: OwnedRow | null): Stand | null {
  if (row === null || row.untilMs === null) return null
  const [term, revision] = row.version
  const hasPassed = term % 2 === 1
  return {
    generation: Math.floor(term / 2),
    hasPassed,
    firstMs: hasPassed ? 0 : Number.MAX_SAFE_INTEGER - revision,
    untilMs: row.untilMs,
  }
}

function isHigher(one: readonly [number, number], other: readonly [number, number]): boolean {
  return one[0] > other[0] || (one[0] === other[0] && one[1] > other[1])
}
