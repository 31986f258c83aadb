/**
 * The backstop behind a feed: two nodes that claim to cover the same writes compare sums over
 * their rows, and exchange those that differ. It should never find any: whatever it repairs is
 * counted as a fault of ours (design: cluster.md, State).
 *
 * The node with the lower id begins with its 256 sums; the other one answers with the names and
 * hashes of some leaves that differ; then rows go both ways. Each step carries the hash of the
 * sender's vector and is dropped by a node that has moved on meanwhile: what is merely under way
 * is no damage. What does not fit the budget waits for the next round.
 */
import { createHash } from 'node:crypto'
import type { Clock } from '../base/clock.ts'
import type { Observer } from '../base/observe.ts'
import type { Random } from '../base/random.ts'
import { canonicalText, type SharedRow, type Vector } from '../config/merge.ts'
import type { Applied, Feed, WireRow } from '../store/feed.ts'
import { type Link, MESSAGE, MESSAGE_BYTES_MAX } from './contract.ts'
import {
  type DigestStep,
  encodeDigest,
  encodeRepair,
  type LeafNames,
  type RepairStep,
} from './wire.ts'

/** A round begins at most this often on one link, and is given up after it. */
const ROUND_MS = 4_000
/** Leaves of one round: each is a look through the rows. */
const ROUND_LEAVES_MAX = 8
const ROUND_NAMES_MAX = 3_000
const MESSAGE_ROWS = 100
const MESSAGE_NAMES = 500
/** What repairs may send, all peers together. */
const BYTES_PER_SECOND = 1_000_000

type Round = { beganMono: number; answeredMono: number; waits: boolean }

export class Repair {
  readonly #feed: Feed
  readonly #clock: Clock
  readonly #random: Random
  readonly #observer: Observer
  readonly #rounds = new Map<Link, Round>()
  #budget = BYTES_PER_SECOND
  #filledMono: number
  #repaired = 0

  constructor(
    feed: Feed,
    deps: { readonly clock: Clock; readonly random: Random; readonly observer: Observer },
  ) {
    this.#feed = feed
    this.#clock = deps.clock
    this.#random = deps.random
    this.#observer = deps.observer
    this.#filledMono = deps.clock.monoMs()
  }

  /** Rows that were repaired here since the start. */
  get repaired(): number {
    return this.#repaired
  }

  closed(link: Link): void {
    this.#rounds.delete(link)
  }

  /** Both cover the same, and the sums differ. @throws StoreError */
  begin(link: Link): void {
    const leaves = this.#feed.digest()?.leaves ?? null
    const round = this.#round(link)
    const monoMs = this.#clock.monoMs()
    if (leaves === null || monoMs - round.beganMono < ROUND_MS) return
    round.beganMono = monoMs
    round.waits = this.#send(link, MESSAGE.digest, this.#step({ leaves, named: null }))
  }

  /** @throws StoreError */
  compare(link: Link, { covered, leaves, named }: DigestStep): void {
    const round = this.#round(link)
    if (covered !== hashOfVector(this.#feed.vector())) return
    if (leaves !== null) {
      const monoMs = this.#clock.monoMs()
      if (monoMs - round.answeredMono < ROUND_MS / 2) return
      round.answeredMono = monoMs
      this.#name(link, leaves)
    } else if (named !== null && round.waits) {
      round.waits = false
      this.#exchange(link, named)
    }
  }

  /** `take` applies rows. @throws what it throws; StoreError */
  repair(
    link: Link,
    { covered, rows, wanted }: RepairStep,
    take: (rows: readonly WireRow[]) => Applied,
  ): void {
    if (covered !== hashOfVector(this.#feed.vector())) return
    if (rows.length > 0) {
      const { changed } = take(rows)
      this.#repaired += changed
      if (changed > 0) {
        const fields = { feed: this.#feed.name, peer: link.peer, rows: changed }
        this.#observer.emit('sync.repaired', fields)
      }
    }
    // What was deleted here is in no sum: whoever shows it is told.
    const later = rows.flatMap((row) => this.#laterThan(row as SharedRow))
    this.#give(link, [...new Set([...wanted, ...later])])
  }

  /** The name of a row that was taken, when more is known of it here. */
  #laterThan(row: SharedRow): readonly string[] {
    const name = `${row.kind}/${row.key}`
    const [mine] = this.#feed.rowsOf([name])
    return mine === undefined || canonicalText(mine) === canonicalText(row) ? [] : [name]
  }

  /** Names and hashes of the first leaves that differ. */
  #name(link: Link, theirs: readonly string[]): void {
    const mine = this.#feed.digest()?.leaves ?? []
    const differing = mine.flatMap((sum, leaf) => (sum === theirs[leaf] ? [] : [leaf]))
    if (differing.length === 0) return
    for (let namesMax = ROUND_NAMES_MAX; namesMax > 0; namesMax >>= 1) {
      const named: LeafNames[] = []
      let names = 0
      for (const leaf of differing.slice(0, ROUND_LEAVES_MAX)) {
        if (names >= namesMax) break
        const part = this.#window(leaf, namesMax)
        names += part.names.length
        named.push(part)
      }
      if (this.#send(link, MESSAGE.digest, this.#step({ leaves: null, named }))) return
    }
  }

  /** A leaf by name, or, when it is too long, as much of it from a place that chance chooses. */
  #window(leaf: number, namesMax: number): LeafNames {
    const names = this.#feed
      .leaf(leaf)
      .map(({ name, hash }) => [name, hash] as const)
      .sort(([a], [b]) => (a < b ? -1 : 1))
    const first = names.length <= namesMax ? 0 : this.#random.below(names.length)
    const part = names.slice(first, first + namesMax)
    return {
      leaf,
      after: names[first - 1]?.[0] ?? '',
      upto: first + part.length < names.length ? (part.at(-1)?.[0] ?? null) : null,
      names: part,
    }
  }

  #exchange(link: Link, named: readonly LeafNames[]): void {
    const offered: string[] = []
    const wanted: string[] = []
    for (const { leaf, after, upto, names } of named.slice(0, ROUND_LEAVES_MAX)) {
      const mine = new Map(
        this.#feed
          .leaf(leaf)
          .filter(({ name }) => name > after && (upto === null || name <= upto))
          .map(({ name, hash }) => [name, hash]),
      )
      for (const [name, hash] of names) {
        const known = mine.get(name)
        mine.delete(name)
        if (known === hash) continue
        wanted.push(name)
        if (known !== undefined) offered.push(name)
      }
      offered.push(...mine.keys())
    }
    this.#give(link, offered)
    for (const part of partsOf(wanted, MESSAGE_NAMES)) this.#sendRows(link, [], part)
  }

  #give(link: Link, names: readonly string[]): void {
    for (const part of partsOf(names, MESSAGE_ROWS)) {
      const rows = this.#feed.rowsOf(part)
      if (this.#sendRows(link, rows, []) || rows.length === 1) continue
      for (const row of rows) this.#sendRows(link, [row], [])
    }
  }

  #sendRows(link: Link, rows: readonly WireRow[], wanted: readonly string[]): boolean {
    const covered = hashOfVector(this.#feed.vector())
    const step = { feed: this.#feed.name, covered, rows, wanted }
    return this.#send(link, MESSAGE.repair, encodeRepair(step))
  }

  #step(step: Pick<DigestStep, 'leaves' | 'named'>): Uint8Array {
    const covered = hashOfVector(this.#feed.vector())
    return encodeDigest({ feed: this.#feed.name, covered, ...step })
  }

  /** False: too long, no budget, or no room on the link. */
  #send(link: Link, type: number, body: Uint8Array): boolean {
    const monoMs = this.#clock.monoMs()
    const gained = ((monoMs - this.#filledMono) / 1_000) * BYTES_PER_SECOND
    this.#budget = Math.min(BYTES_PER_SECOND, this.#budget + gained)
    this.#filledMono = monoMs
    if (body.length > MESSAGE_BYTES_MAX || body.length > this.#budget) return false
    if (!link.send(type, body, true)) return false
    this.#budget -= body.length
    return true
  }

  #round(link: Link): Round {
    const never = Number.NEGATIVE_INFINITY
    const round = this.#rounds.get(link) ?? { beganMono: never, answeredMono: never, waits: false }
    this.#rounds.set(link, round)
    return round
  }
}

/** 12 hex digits, equal for equal vectors. */
function hashOfVector(vector: Vector): string {
  const text = [...vector]
    .map(([writer, seq]) => `${writer}:${seq}`)
    .sort()
    .join(' ')
  return createHash('sha256').update(text).digest('hex').slice(0, 12)
}

function partsOf(names: readonly string[], size: number): readonly (readonly string[])[] {
  return Array.from({ length: Math.ceil(names.length / size) }, (_, part) =>
    names.slice(part * size, (part + 1) * size),
  )
}
