/**
 * Held mail of all nodes, and the claims about it. Each message has one owner: it alone decides,
 * writes its rows and has its sealed file, which is the truth for what is held there. Claims stand
 * only in the rows, so every commit is synced.
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
  notExists,
  notInArray,
  type SQL,
  sql,
} from 'drizzle-orm'
import type { Clock, Timer } from '../base/clock.ts'
import { assert, StoreError } from '../base/errors.ts'
import { type MessageId, type NodeId, parseMessageId } from '../base/ids.ts'
import { LIST_MAX } from '../base/limits.ts'
import type { Observer } from '../base/observe.ts'
import type { Claim, HeldRow, NodeName, PendingClaim } from '../message/rows.ts'
import type { Finding, Unknown } from '../message/verdict.ts'
import type { Bodies, HeldMail } from './bodies.ts'
import { conditionOf, contains, type Searchable } from './conditions.ts'
import type { StoreDatabase } from './db.ts'
import { heldProjection, pendingProjection } from './held-index.ts'
import {
  COPIES_MAX,
  type CopyValue,
  type HeldValue,
  heldKey,
  type PendingValue,
  readHeldValue,
} from './held-row.ts'
import { type NodeNames, nodeName, nodesNamed } from './names.ts'
import type { Query, State } from './query.ts'
import type { SharedRows } from './shared.ts'
import { held, heldCopies, heldPending } from './tables.ts'
import { badCursor, COUNT_MAX, type Found, splitRules } from './trace.ts'

/** What `is:` may ask of held mail. */
export const HELD_STATES: readonly State[] = ['held', 'unknown']

/** As the partial index says it: with a parameter SQLite could not use that. */
const UNDECIDED = sql`${held.undecided} > 0`

const FLUSH_MS = 200
const FLUSH_ROWS = 200
/** Rows that wait while the database refuses. More are left to the next start: files are the truth. */
const WAITING_MAX = 10_000
/** A decided message without a body is shown this long on its page, then every node forgets it. */
const DECIDED_MS = 7 * 86_400_000

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

/** A release that this node decided and that is not known to be in its queue. */
export type PendingRelease = {
  readonly id: MessageId
  readonly places: readonly number[]
  readonly claim: Claim
}

/** What others asked of this node while it was away. */
export type Asked = {
  readonly id: MessageId
  readonly places: readonly number[]
  readonly claim: Claim
}

export type HeldEntry = {
  readonly row: HeldRow
  /** Every recipient that was held, ascending by place; `claim` null: not decided. */
  readonly copies: readonly HeldCopy[]
  /** The sealed file was removed, or is missing. */
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
  readonly #rows: SharedRows
  readonly #clock: Clock
  readonly #observer: Observer
  /** This one, the owner of what it holds. */
  readonly node: NodeName
  readonly #nodes: NodeNames
  #waiting: HeldMail[] = []
  #timer: Timer | null = null

  /** Before `rows.start`. `node` is this one; `nodes` names all of them. */
  constructor(
    store: StoreDatabase,
    rows: SharedRows,
    deps: {
      readonly clock: Clock
      readonly observer: Observer
      readonly node: NodeName
      readonly nodes?: NodeNames
    },
  ) {
    const { node } = deps
    this.#store = store
    this.#rows = rows
    this.#clock = deps.clock
    this.#observer = deps.observer
    this.node = node
    this.#nodes = deps.nodes ?? (() => [node])
    rows.project('held', heldProjection(store))
    rows.project('pending', pendingProjection(store))
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

  /** One commit for all that `act` writes; it never awaits. @throws StoreError; as `act` */
  together<Result>(act: () => Result): Result {
    return this.#rows.transact(act)
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
   * Decides held recipients of a message of this node, once and for all: what was decided before
   * stays, and the clicks that waited for it are answered. `places` null: all. Durable when it
   * returns. Empty when the message is not known. @throws StoreError
   */
  claim(id: MessageId, places: readonly number[] | null, claim: Claim): readonly Claimed[] {
    this.#writeWaiting()
    return this.#rows.transact(() => {
      const owner = this.#ownerOf(id)
      assert(owner === null || owner === this.node.id, 'only its owner decides about a mail')
      return this.#decide(id, places, claim, null)
    })
  }

  /**
   * Takes a message over from a node that is gone for good, by deciding about it: only a deletion
   * makes sense, its body was there. @throws StoreError
   */
  takeOver(id: MessageId, places: readonly number[] | null, claim: Claim): readonly Claimed[] {
    return this.#rows.transact(() => {
      const claimed = this.#decide(id, places, claim, this.node.id)
      this.#markBody(id, this.#clock.wallMs())
      return claimed
    })
  }

  /**
   * Leaves clicks for an owner that does not answer; where one waits already, that one counts.
   * Gives the places that are new. @throws StoreError
   */
  ask(
    id: MessageId,
    places: readonly number[],
    kind: PendingValue['kind'],
    by: string,
  ): readonly number[] {
    return this.#rows.transact(() => {
      const to = this.#ownerOf(id)
      if (to === null) return []
      const decided = new Set(
        this.#copies([id]).flatMap(({ place, claim }) => (claim === null ? [] : [place])),
      )
      const asked = new Set(this.#pendingOf([id]).map(({ place }) => place))
      const fresh = places.filter((place) => !decided.has(place) && !asked.has(place))
      const value: PendingValue = { kind, by, atMs: this.#clock.wallMs(), to }
      for (const place of fresh) {
        const key = `${id}/${place}/${this.#rows.writer}`
        const before = this.#rows.owned('pending', key)?.version ?? [1, 0]
        this.#putNext('pending', key, before, JSON.stringify(value), by, null)
      }
      return fresh
    })
  }

  /**
   * Clicks for messages of this node that wait to be run, oldest first. Of several that were made
   * apart a release counts before a deletion, then the first. Those about what is decided are
   * answered by that and go. @throws StoreError
   */
  asked(): readonly Asked[] {
    this.flush()
    return this.#rows.transact(() => {
      const { query } = this.#store
      const waiting = query
        .select()
        .from(heldPending)
        .innerJoin(held, eq(held.id, heldPending.id))
        .leftJoin(
          heldCopies,
          and(eq(heldCopies.id, heldPending.id), eq(heldCopies.place, heldPending.place)),
        )
        .where(eq(held.owner, this.node.id))
        .orderBy(desc(heldPending.kind), asc(heldPending.stamp), asc(heldPending.key))
        .all()
      const clicks = new Map<string, { id: MessageId; places: number[]; claim: Claim }>()
      const seen = new Set<string>()
      for (const { held_pending: pending, held_copy: copy } of waiting) {
        const { id, place, kind, askedBy: by, askedMs: atMs, addressee } = pending
        if (copy === null || copy.kind !== null) {
          this.#answer([pending.key])
          continue
        }
        const name = `${id} ${place}`
        if (addressee !== this.node.id || seen.has(name)) continue
        seen.add(name)
        const key = `${id} ${kind} ${by} ${atMs}`
        const click = clicks.get(key) ?? {
          id: id as MessageId,
          places: [],
          claim: { kind, by, atMs: this.#clock.wallMs() },
        }
        click.places.push(place)
        clicks.set(key, click)
      }
      return [...clicks.values()]
    })
  }

  /** Called after clicks came in from peers. */
  onAsked(listener: () => void): void {
    this.#rows.onChange('pending', ({ origin }) => {
      if (origin === 'peer') listener()
    })
  }

  /** Notes that the copies are in the queue, durably. Again is harmless. @throws StoreError */
  markEnqueued(id: MessageId, places: readonly number[]): void {
    const enqueuedMs = this.#clock.wallMs()
    this.#change(id, (copy) =>
      places.includes(copy.place) && copy.enqueuedMs === undefined ? { ...copy, enqueuedMs } : copy,
    )
  }

  /** Releases that a crash cut off between claim and queue: enqueue them again. @throws StoreError */
  pendingReleases(): readonly PendingRelease[] {
    this.flush()
    const rows = this.#store.attempt(() =>
      this.#store.query
        .select({ copy: heldCopies })
        .from(heldCopies)
        .innerJoin(held, eq(held.id, heldCopies.id))
        .where(
          and(
            eq(heldCopies.kind, 'release'),
            isNull(heldCopies.enqueuedMs),
            eq(held.owner, this.node.id),
          ),
        )
        .orderBy(asc(heldCopies.id), asc(heldCopies.place))
        .all(),
    )
    const releases = new Map<string, { id: MessageId; places: number[]; claim: Claim }>()
    for (const { copy } of rows) {
      const { id, place, decidedBy, decidedMs } = copy
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
      if (stored === undefined) return null
      return this.#entryOf(stored, this.#copies([id]), this.#pendingOf([id]))
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
      const ids = rows.map(({ id }) => id)
      const copies = Map.groupBy(this.#copies(ids), ({ id }) => id)
      const pending = Map.groupBy(this.#pendingOf(ids), ({ id }) => id)
      return {
        rows: rows.map(
          (row) => this.#entryOf(row, copies.get(row.id) ?? [], pending.get(row.id) ?? []).row,
        ),
        total:
          page.cursor === null && !more
            ? rows.length
            : this.#store.count(held, COUNT_MAX, condition),
        cursor: more ? (rows.at(-1)?.id ?? null) : null,
      }
    })
  }

  /** Messages of all nodes with at least one undecided recipient. @throws StoreError */
  count(): number {
    return this.#countWhere(UNDECIDED)
  }

  /** Those that a node owns. @throws StoreError */
  countOf(owner: string): number {
    return this.#countWhere(and(eq(held.owner, owner), UNDECIDED))
  }

  /** Messages of this node whose time is over and that nobody asked for. @throws StoreError */
  expired(nowMs: number, limit: number): readonly MessageId[] {
    this.flush()
    const asked = this.#store.query
      .select({ one: sql`1` })
      .from(heldPending)
      .where(eq(heldPending.id, held.id))
    return this.#ownIds(and(UNDECIDED, lte(held.expiresMs, nowMs), notExists(asked)), limit)
  }

  /**
   * Messages of this node all of whose recipients were decided at `beforeMs` or earlier, with no
   * release waiting for the queue: their sealed file may go. @throws StoreError
   */
  removable(beforeMs: number, limit: number): readonly MessageId[] {
    const waiting = this.#store.query
      .select({ id: heldCopies.id })
      .from(heldCopies)
      .where(and(eq(heldCopies.kind, 'release'), isNull(heldCopies.enqueuedMs)))
    return this.#ownIds(
      and(
        sql`${held.undecided} = 0`,
        lte(held.decidedMs, beforeMs),
        isNull(held.bodyGoneMs),
        notInArray(held.id, waiting),
      ),
      limit,
    )
  }

  /**
   * The sealed file of a message of this node is not there. When it is decided, every node
   * forgets it in time: with the file there, a rebuild would hold a released mail again.
   * @throws StoreError
   */
  markBodyGone(id: MessageId): void {
    this.#markBody(id, this.#clock.wallMs())
  }

  /**
   * Makes rows and sealed files of this node agree: adds rows for files that have none (a crash, a
   * lost database), and marks rows whose file is missing, or is there again. For the start. Gives
   * how many were added, and the ids of files that cannot be read.
   * @throws StoreError when the database refuses
   */
  async rebuild(
    bodies: Bodies,
  ): Promise<{ readonly added: number; readonly damaged: readonly MessageId[] }> {
    this.flush()
    const { id, owner, bodyGoneMs } = held
    const known = new Map(
      this.#store
        .attempt(() => this.#store.query.select({ id, owner, bodyGoneMs }).from(held).all())
        .map((stored) => [stored.id, stored]),
    )
    const files = new Set<string>(bodies.list())
    this.#rows.transact(() => {
      for (const stored of known.values()) {
        const isGone = stored.bodyGoneMs !== null
        if (stored.owner !== this.node.id || isGone !== files.has(stored.id)) continue
        // A disk that was not mounted at the last start took nothing away.
        this.#markBody(stored.id as MessageId, isGone ? null : this.#clock.wallMs())
      }
    })
    const damaged: MessageId[] = []
    let added = 0
    for (const id of [...files] as MessageId[]) {
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
    const mails = this.#waiting
    this.#rows.transact(() => {
      for (const mail of mails) this.#insert(mail)
    })
    this.#waiting = []
  }

  #insert({ row, envelope, places }: HeldMail): void {
    // Also one that was decided and forgotten: the spool may be older than the database.
    if (this.#rows.rowsOf([`held/${row.id}`]).length > 0) return
    const { id, recipients, ...facts } = row
    const copies = places.map((place) => ({
      place,
      address: envelope.recipients[place]?.address ?? '',
    }))
    for (let part = 0; part === 0 || part * COPIES_MAX < copies.length; part++) {
      const value: HeldValue = {
        owner: this.node.id,
        ...(part === 0 ? { row: facts } : {}),
        copies: copies.slice(part * COPIES_MAX, (part + 1) * COPIES_MAX),
      }
      this.#putNext('held', heldKey(id, part), [1, 0], JSON.stringify(value), 'postern', null)
    }
  }

  #markBody(id: MessageId, bodyGoneMs: number | null): void {
    this.#change(id, (copy) => copy, { bodyGoneMs })
  }

  /** Inside a transaction. `taker`: who becomes the owner; null: nobody. */
  #decide(
    id: MessageId,
    places: readonly number[] | null,
    claim: Claim,
    taker: NodeId | null,
  ): readonly Claimed[] {
    const wanted = this.#copies([id]).filter(
      ({ place }) => places === null || places.includes(place),
    )
    const open = new Set(wanted.filter((copy) => copy.claim === null).map(({ place }) => place))
    if (open.size > 0) {
      this.#change(id, (copy) => (open.has(copy.place) ? { ...copy, claim } : copy), {}, taker)
    }
    const answered = this.#pendingOf([id]).filter(({ place }) => open.has(place))
    this.#answer(answered.map(({ key }) => key))
    return wanted.map(({ place, address, claim: before, enqueuedMs }) => ({
      place,
      address,
      won: before === null,
      claim: before ?? claim,
      enqueued: enqueuedMs !== null,
    }))
  }

  /** Writes the rows of a message that differ after the change; all of them to a new owner. */
  #change(
    id: MessageId,
    change: (copy: CopyValue) => CopyValue,
    facts: { readonly bodyGoneMs?: number | null } = {},
    taker: NodeId | null = null,
  ): void {
    this.#rows.transact(() => {
      const parts = this.#parts(id)
      const changed = parts.map(({ value }) => value.copies.map(change))
      const bodyGoneMs =
        facts.bodyGoneMs === undefined ? (parts[0]?.value.bodyGoneMs ?? null) : facts.bodyGoneMs
      const untilMs = forgottenAt(changed.flat(), bodyGoneMs)
      for (const [part, { version, value, untilMs: before }] of parts.entries()) {
        const { bodyGoneMs: _, ...rest } = value
        const next: HeldValue = {
          ...rest,
          owner: taker ?? value.owner,
          copies: changed[part] ?? [],
          ...(part === 0 && bodyGoneMs !== null ? { bodyGoneMs } : {}),
        }
        const text = JSON.stringify(next)
        if (text === JSON.stringify(value) && untilMs === before) continue
        const from = taker === null ? version : ([version[0] + 1, 0] as const)
        this.#putNext('held', heldKey(id, part), from, text, 'postern', untilMs)
      }
    })
  }

  #putNext(
    kind: string,
    key: string,
    [term, revision]: readonly [term: number, revision: number],
    value: string | null,
    author: string,
    untilMs: number | null,
  ): void {
    this.#rows.put(kind, key, [term, revision + 1], value, author, untilMs)
  }

  /** Clicks that a claim has answered; the tombstone goes when the claim is forgotten at the latest. */
  #answer(keys: readonly string[]): void {
    for (const key of keys) {
      const row = this.#rows.owned('pending', key)
      if (row === null || row.value === null) continue
      this.#putNext('pending', key, row.version, null, 'postern', this.#clock.wallMs() + DECIDED_MS)
    }
  }

  /** The rows of a message in order; empty when it is not known. */
  #parts(id: MessageId) {
    const parts = []
    for (let part = 0; ; part++) {
      const row = this.#rows.owned('held', heldKey(id, part))
      const value = row?.value === undefined || row.value === null ? null : readHeldValue(row.value)
      if (row === null || value === null) return parts
      parts.push({ version: row.version, untilMs: row.untilMs, value })
    }
  }

  #ownerOf(id: MessageId): NodeId | null {
    const stored = this.#store.attempt(() =>
      this.#store.query.select({ owner: held.owner }).from(held).where(eq(held.id, id)).get(),
    )
    return (stored?.owner as NodeId | undefined) ?? null
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

  #pendingOf(ids: readonly string[]) {
    return this.#store.query
      .select()
      .from(heldPending)
      .where(inArray(heldPending.id, [...ids]))
      .orderBy(asc(heldPending.stamp), asc(heldPending.key))
      .all()
  }

  #ownIds(condition: SQL | undefined, limit: number): readonly MessageId[] {
    return this.#store.attempt(() =>
      this.#store.query
        .select({ id: held.id })
        .from(held)
        .where(and(eq(held.owner, this.node.id), condition))
        .orderBy(asc(held.id))
        .limit(limit)
        .all()
        .map(({ id }) => id as MessageId),
    )
  }

  #countWhere(condition: SQL | undefined): number {
    this.flush()
    return this.#store.attempt(
      () =>
        this.#store.query.select({ count: sql<number>`count(*)` }).from(held).where(condition).get()
          ?.count ?? 0,
    )
  }

  #entryOf(
    stored: typeof held.$inferSelect,
    copies: readonly HeldCopy[],
    pending: readonly (typeof heldPending.$inferSelect)[],
  ): HeldEntry {
    const { findings, unknowns } = JSON.parse(stored.reasons) as {
      readonly findings: readonly Finding[]
      readonly unknowns: readonly Unknown[]
    }
    return {
      row: {
        // Only ids of ours are ever written, here and by peers.
        id: stored.id as MessageId,
        owner: nodeName(this.#nodes, stored.owner as NodeId),
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
        pending: this.#clicks(copies, pending),
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

  /** One for each recipient that waits: the first, but a release before a deletion. */
  #clicks(
    copies: readonly HeldCopy[],
    pending: readonly (typeof heldPending.$inferSelect)[],
  ): readonly PendingClaim[] {
    return copies.flatMap(({ place, address, claim }) => {
      if (claim !== null) return []
      const clicks = pending.filter((click) => click.place === place)
      const first = clicks.find(({ kind }) => kind === 'release') ?? clicks[0]
      if (first === undefined) return []
      const { kind, askedBy: by, askedMs: atMs, addressee } = first
      const to = nodeName(this.#nodes, addressee as NodeId)
      return [{ recipient: address, kind, by, atMs, to }]
    })
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
      node: (text) => inArray(held.owner, nodesNamed(this.#nodes, text)),
    }
  }
}

/** Null while something is undecided, or the body may still be wanted. */
function forgottenAt(copies: readonly CopyValue[], bodyGoneMs: number | null): number | null {
  if (bodyGoneMs === null || copies.some(({ claim }) => claim === undefined)) return null
  return Math.max(...copies.map(({ claim }) => claim?.atMs ?? 0)) + DECIDED_MS
}
