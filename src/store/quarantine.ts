/**
 * Index of held mail, and the claims about it. The sealed files are the truth for what is held:
 * a missing row is rebuilt from its file. Claims stand only here, so every commit is synced.
 */
import {
  and,
  asc,
  desc,
  eq,
  gt,
  inArray,
  isNull,
  lt,
  lte,
  notInArray,
  type SQL,
  sql,
} from 'drizzle-orm'
import type { Clock, Timer } from '../base/clock.ts'
import { StoreError } from '../base/errors.ts'
import { type MessageId, parseMessageId } from '../base/ids.ts'
import { LIST_MAX } from '../base/limits.ts'
import type { Observer } from '../base/observe.ts'
import type { Claim, HeldRow } from '../message/rows.ts'
import type { Finding, Unknown } from '../message/verdict.ts'
import type { Bodies, HeldMail } from './bodies.ts'
import { conditionOf, contains, foldedOrNull, type Searchable } from './conditions.ts'
import type { StoreDatabase } from './db.ts'
import type { Query, State } from './query.ts'
import { held, heldCopies } from './tables.ts'
import { badCursor, COUNT_MAX, type Found, splitRules } from './trace.ts'

/** What `is:` may ask of held mail. */
export const HELD_STATES: readonly State[] = ['held', 'unknown']

const FLUSH_MS = 200
const FLUSH_ROWS = 200
/** Rows that wait while the database refuses. More are left to the next start: files are the truth. */
const WAITING_MAX = 10_000

/** One recipient of a claim: won by it, or decided before by `claim`. */
export type Claimed = {
  readonly place: number
  readonly address: string
  readonly won: boolean
  /** The claim that stands. */
  readonly claim: Claim
  /** It is a release, and the copy is known to be in the queue. */
  readonly enqueued: boolean
}

/** A release that is decided and not known to be in the queue. */
export type PendingRelease = {
  readonly id: MessageId
  readonly places: readonly number[]
  readonly claim: Claim
}

export type HeldEntry = {
  readonly row: HeldRow
  /** Every recipient that was held, ascending by place; `claim` null: not decided. */
  readonly copies: readonly HeldCopy[]
  /** The sealed file was removed. */
  readonly bodyGone: boolean
}

export type HeldCopy = {
  readonly place: number
  readonly address: string
  readonly claim: Claim | null
  readonly enqueuedMs: number | null
}

export class Quarantine {
  readonly #store: StoreDatabase
  readonly #clock: Clock
  readonly #observer: Observer
  readonly #isNode: (text: string) => boolean
  #waiting: HeldMail[] = []
  #timer: Timer | null = null

  constructor(
    store: StoreDatabase,
    deps: {
      readonly clock: Clock
      readonly observer: Observer
      readonly node: { readonly id: string; readonly name: string }
    },
  ) {
    this.#store = store
    this.#clock = deps.clock
    this.#observer = deps.observer
    const names = [deps.node.id, deps.node.name.toLowerCase()]
    this.#isNode = (text) => names.some((name) => name.startsWith(text.toLowerCase()))
  }

  /**
   * Adds a message whose sealed file is already durable. Never waits, never throws: rows are
   * written together within 200 ms, and every question sees them.
   */
  add(mail: HeldMail): void {
    this.#observer.emit('mail.held', { message: mail.row.id })
    if (this.#waiting.length >= WAITING_MAX) return
    this.#waiting.push(mail)
    const delayMs = this.#waiting.length === FLUSH_ROWS ? 0 : FLUSH_MS
    if (delayMs === 0) this.#timer?.cancel()
    if (this.#timer === null || delayMs === 0) {
      this.#timer = this.#clock.after(delayMs, () => this.flush())
    }
  }

  /** Writes what was added. A database that refuses leaves it for later; no throw. */
  flush(): void {
    this.#timer?.cancel()
    this.#timer = null
    if (this.#waiting.length === 0) return
    try {
      this.#writeWaiting()
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      this.#timer = this.#clock.after(5_000, () => this.flush())
    }
  }

  /**
   * Decides held recipients, once and for all: what was decided before stays. `places` null: all.
   * Durable when it returns. Empty when the message is not known. @throws StoreError
   */
  claim(id: MessageId, places: readonly number[] | null, claim: Claim): readonly Claimed[] {
    this.#writeWaiting()
    return this.#store.transact(() => {
      const { query } = this.#store
      const wanted = this.#copies([id]).filter(
        ({ place }) => places === null || places.includes(place),
      )
      const open = wanted.filter((copy) => copy.claim === null).map(({ place }) => place)
      if (open.length > 0) {
        query
          .update(heldCopies)
          .set({ kind: claim.kind, decidedBy: claim.by, decidedMs: claim.atMs })
          .where(
            and(eq(heldCopies.id, id), isNull(heldCopies.kind), inArray(heldCopies.place, open)),
          )
          .run()
        query
          .update(held)
          .set({ undecided: sql`${held.undecided} - ${open.length}`, decidedMs: claim.atMs })
          .where(eq(held.id, id))
          .run()
      }
      return wanted.map(({ place, address, claim: before, enqueuedMs }) => ({
        place,
        address,
        won: before === null,
        claim: before ?? claim,
        enqueued: enqueuedMs !== null,
      }))
    })
  }

  /** Notes that the copies are in the queue, durably. Again is harmless. @throws StoreError */
  markEnqueued(id: MessageId, places: readonly number[]): void {
    this.#store.transact(() =>
      this.#store.query
        .update(heldCopies)
        .set({ enqueuedMs: this.#clock.wallMs() })
        .where(
          and(
            eq(heldCopies.id, id),
            inArray(heldCopies.place, [...places]),
            isNull(heldCopies.enqueuedMs),
          ),
        )
        .run(),
    )
  }

  /** Releases that a crash cut off between claim and queue: enqueue them again. @throws StoreError */
  pendingReleases(): readonly PendingRelease[] {
    this.flush()
    const rows = this.#store.attempt(() =>
      this.#store.query
        .select()
        .from(heldCopies)
        .where(and(eq(heldCopies.kind, 'release'), isNull(heldCopies.enqueuedMs)))
        .orderBy(asc(heldCopies.id), asc(heldCopies.place))
        .all(),
    )
    const releases = new Map<string, { id: MessageId; places: number[]; claim: Claim }>()
    for (const { id, place, decidedBy, decidedMs } of rows) {
      // One click is one release: recipients decided by others at other times are another.
      const key = `${id} ${decidedBy} ${decidedMs}`
      const claim: Claim = { kind: 'release', by: decidedBy ?? '', atMs: decidedMs ?? 0 }
      const release = releases.get(key) ?? { id: id as MessageId, places: [], claim }
      release.places.push(place)
      releases.set(key, release)
    }
    return [...releases.values()]
  }

  /** One message, decided or not; null when it is not known. @throws StoreError */
  one(id: MessageId): HeldEntry | null {
    this.flush()
    return this.#store.attempt(() => {
      const stored = this.#store.query.select().from(held).where(eq(held.id, id)).get()
      return stored === undefined ? null : entryOf(stored, this.#copies([id]))
    })
  }

  /** What is held now, newest first. @throws RefusalError for a cursor that is none; StoreError */
  search(
    query: Query,
    page: { readonly limit: number; readonly cursor: string | null },
  ): Found<HeldRow> {
    this.flush()
    const limit = Math.min(Math.max(1, Math.floor(page.limit) || 1), LIST_MAX)
    const condition = and(gt(held.undecided, 0), conditionOf(query, this.#searchable()))
    if (page.cursor !== null && parseMessageId(page.cursor) === null) throw badCursor()
    const from = page.cursor === null ? undefined : lt(held.id, page.cursor)
    return this.#store.attempt(() => {
      const found = this.#store.query
        .select()
        .from(held)
        .where(and(condition, from))
        .orderBy(desc(held.id))
        .limit(limit + 1)
        .all()
      const rows = found.slice(0, limit)
      const more = found.length > limit
      const copies = Map.groupBy(this.#copies(rows.map(({ id }) => id)), ({ id }) => id)
      return {
        rows: rows.map((row) => entryOf(row, copies.get(row.id) ?? []).row),
        total:
          page.cursor === null && !more
            ? rows.length
            : this.#store.count(held, COUNT_MAX, condition),
        cursor: more ? (rows.at(-1)?.id ?? null) : null,
      }
    })
  }

  /** Messages with at least one undecided recipient. @throws StoreError */
  count(): number {
    this.flush()
    return this.#store.attempt(
      () =>
        this.#store.query
          .select({ count: sql<number>`count(*)` })
          .from(held)
          .where(gt(held.undecided, 0))
          .get()?.count ?? 0,
    )
  }

  /** Messages whose time is over, oldest first. @throws StoreError */
  expired(nowMs: number, limit: number): readonly MessageId[] {
    this.flush()
    return this.#ids(and(gt(held.undecided, 0), lte(held.expiresMs, nowMs)), limit)
  }

  /**
   * Messages all of whose recipients were decided at `beforeMs` or earlier, with no release
   * waiting for the queue: their sealed file may go. @throws StoreError
   */
  removable(beforeMs: number, limit: number): readonly MessageId[] {
    const waiting = this.#store.query
      .select({ id: heldCopies.id })
      .from(heldCopies)
      .where(and(eq(heldCopies.kind, 'release'), isNull(heldCopies.enqueuedMs)))
    return this.#ids(
      and(
        eq(held.undecided, 0),
        lte(held.decidedMs, beforeMs),
        isNull(held.bodyGoneMs),
        notInArray(held.id, waiting),
      ),
      limit,
    )
  }

  /** The sealed file was removed. @throws StoreError */
  markBodyGone(id: MessageId): void {
    this.#store.transact(() =>
      this.#store.query
        .update(held)
        .set({ bodyGoneMs: this.#clock.wallMs() })
        .where(eq(held.id, id))
        .run(),
    )
  }

  /**
   * Forgets messages decided at `beforeMs` or earlier whose file is gone: with the file there, a
   * rebuild would hold a released mail again. Gives how many. @throws StoreError
   */
  prune(beforeMs: number, limit: number): number {
    return this.#store.transact(() => {
      const ids = this.#ids(
        and(
          eq(held.undecided, 0),
          lte(held.decidedMs, beforeMs),
          sql`${held.bodyGoneMs} is not null`,
        ),
        limit,
      )
      if (ids.length > 0)
        this.#store.query
          .delete(held)
          .where(inArray(held.id, [...ids]))
          .run()
      return ids.length
    })
  }

  /**
   * Adds rows for sealed files that have none (a crash, a lost database). For the start. Gives
   * how many were added, and the ids of files that cannot be read.
   * @throws StoreError when the database refuses
   */
  async rebuild(
    bodies: Bodies,
  ): Promise<{ readonly added: number; readonly damaged: readonly MessageId[] }> {
    this.flush()
    const known = new Set(
      this.#store
        .attempt(() => this.#store.query.select({ id: held.id }).from(held).all())
        .map(({ id }) => id),
    )
    const damaged: MessageId[] = []
    let added = 0
    for (const id of bodies.list()) {
      if (known.has(id)) continue
      try {
        const mail = await bodies.meta(id)
        if (mail === null) continue
        this.#waiting.push(mail)
        added += 1
        if (this.#waiting.length >= FLUSH_ROWS) this.#writeWaiting()
      } catch (error) {
        if (!(error instanceof StoreError)) throw error
        damaged.push(id)
      }
    }
    this.#writeWaiting()
    return { added, damaged }
  }

  /** Writes the rest and stops. The database stays open: its opener closes it. */
  close(): void {
    this.flush()
    this.#timer?.cancel()
    this.#timer = null
  }

  #writeWaiting(): void {
    if (this.#waiting.length === 0) return
    this.#store.transact(() => this.#insert(this.#waiting))
    this.#waiting = []
  }

  #insert(mails: readonly HeldMail[]): void {
    const { query } = this.#store
    for (const { row, envelope, places } of mails) {
      const inserted = query
        .insert(held)
        .values({
          id: row.id,
          heldMs: row.heldMs,
          expiresMs: row.expiresMs,
          sender: row.sender,
          subject: row.subject,
          from: row.from,
          foldedSubject: foldedOrNull(row.subject),
          foldedFrom: foldedOrNull(row.from),
          clientIp: row.clientIp,
          sizeBytes: row.sizeBytes,
          score: row.score,
          rules: row.rules.length === 0 ? '' : ` ${row.rules.join(' ')} `,
          unknownCount: row.unknowns.length,
          reasons: JSON.stringify({ findings: row.findings, unknowns: row.unknowns }),
          undecided: places.length,
        })
        .onConflictDoNothing()
        .returning({ id: held.id })
        .all()
      if (inserted.length === 0) continue
      for (const place of places) {
        const address = envelope.recipients[place]?.address ?? ''
        query.insert(heldCopies).values({ id: row.id, place, address }).run()
      }
    }
  }

  #copies(ids: readonly string[]): readonly (HeldCopy & { readonly id: string })[] {
    return this.#store.query
      .select()
      .from(heldCopies)
      .where(inArray(heldCopies.id, [...ids]))
      .orderBy(asc(heldCopies.id), asc(heldCopies.place))
      .all()
      .map(({ id, place, address, kind, decidedBy, decidedMs, enqueuedMs }) => ({
        id,
        place,
        address,
        claim: kind === null ? null : { kind, by: decidedBy ?? '', atMs: decidedMs ?? 0 },
        enqueuedMs,
      }))
  }

  #ids(condition: SQL | undefined, limit: number): readonly MessageId[] {
    return this.#store.attempt(() =>
      this.#store.query
        .select({ id: held.id })
        .from(held)
        .where(condition)
        .orderBy(asc(held.id))
        .limit(limit)
        .all()
        .map(({ id }) => id as MessageId),
    )
  }

  #searchable(): Searchable {
    return {
      id: held.id,
      atMs: held.heldMs,
      from: [held.sender, sql`coalesce(${held.foldedFrom}, ${held.from}, '')`],
      to: (pattern) =>
        sql`exists (select 1 from ${heldCopies} where ${heldCopies.id} = ${held.id}
          and ${heldCopies.kind} is null and ${contains(heldCopies.address, pattern)})`,
      subject: sql`coalesce(${held.foldedSubject}, ${held.subject}, '')`,
      ip: held.clientIp,
      rules: held.rules,
      score: held.score,
      sizeBytes: held.sizeBytes,
      state: (state) => (state === 'unknown' ? gt(held.unknownCount, 0) : gt(held.undecided, 0)),
      node: (text) => (this.#isNode(text) ? sql`1 = 1` : sql`1 = 0`),
    }
  }
}

function entryOf(stored: typeof held.$inferSelect, copies: readonly HeldCopy[]): HeldEntry {
  const { findings, unknowns } = JSON.parse(stored.reasons) as {
    readonly findings: readonly Finding[]
    readonly unknowns: readonly Unknown[]
  }
  return {
    row: {
      // Only ids of ours are ever written.
      id: stored.id as MessageId,
      sender: stored.sender,
      recipients: copies.filter(({ claim }) => claim === null).map(({ address }) => address),
      subject: stored.subject,
      from: stored.from,
      clientIp: stored.clientIp,
      sizeBytes: stored.sizeBytes,
      score: stored.score,
      rules: splitRules(stored.rules),
      findings,
      unknowns,
      heldMs: stored.heldMs,
      expiresMs: stored.expiresMs,
    },
    copies: copies.map(({ place, address, claim, enqueuedMs }) => ({
      place,
      address,
      claim,
      enqueuedMs,
    })),
    bodyGone: stored.bodyGoneMs !== null,
  }
}
