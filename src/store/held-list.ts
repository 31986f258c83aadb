/** What is held on all nodes, read from the index: one, lists, counts, and what its owner has to do. */
import {
  and,
  asc,
  desc,
  eq,
  exists,
  gt,
  inArray,
  isNotNull,
  isNull,
  lt,
  lte,
  not,
  notExists,
  notInArray,
  or,
  type SQL,
  sql,
} from 'drizzle-orm'
import { type MessageId, type NodeId, parseMessageId } from '../base/ids.ts'
import { LIST_MAX } from '../base/limits.ts'
import type { Claim, HeldRow, PendingClaim } from '../message/rows.ts'
import type { Finding, Unknown } from '../message/verdict.ts'
import { conditionOf, contains, type Searchable } from './conditions.ts'
import type { StoreDatabase } from './db.ts'
import { nodesOf } from './held-index.ts'
import { type NodeNames, nodeName, nodesNamed } from './names.ts'
import type { Query } from './query.ts'
import { held, heldCopies, heldPending } from './tables.ts'
import { badCursor, COUNT_MAX, type Found, splitRules } from './trace.ts'

/** As the partial index says it: with a parameter SQLite could not use that. */
const UNDECIDED = sql`${held.undecided} > 0`

export type HeldCopy = {
  readonly place: number
  readonly address: string
  readonly claim: Claim | null
  readonly enqueuedMs: number | null
}

export type HeldEntry = {
  readonly row: HeldRow
  /** Every recipient that was held, ascending by place; `claim` null: not decided. */
  readonly copies: readonly HeldCopy[]
  /** Its owner has no sealed file of it: it was removed, or is missing. */
  readonly bodyGone: boolean
  /** Grows with each owner. */
  readonly term: number
  /** Others that may have the body, beside `row.holders`. */
  readonly perhaps: readonly NodeId[]
  /** Taken over although it may have been released since then, wall ms. */
  readonly doubtMs: number | null
}

type Stored = typeof held.$inferSelect
type Click = typeof heldPending.$inferSelect

export class HeldList {
  readonly #store: StoreDatabase
  readonly #nodes: NodeNames

  constructor(store: StoreDatabase, nodes: NodeNames) {
    this.#store = store
    this.#nodes = nodes
  }

  one(id: MessageId): HeldEntry | null {
    return this.#store.attempt(() => {
      const stored = this.#store.query.select().from(held).where(eq(held.id, id)).get()
      if (stored === undefined) return null
      return this.#entryOf(stored, this.copies([id]), this.clicks([id]))
    })
  }

  ownerOf(id: MessageId): NodeId | null {
    const stored = this.#store.attempt(() =>
      this.#store.query.select({ owner: held.owner }).from(held).where(eq(held.id, id)).get(),
    )
    return (stored?.owner as NodeId | undefined) ?? null
  }

  /** What is held now, newest first. @throws RefusalError for a cursor that is none; StoreError */
  search(
    query: Query,
    page: { readonly limit: number; readonly cursor: string | null },
  ): Found<HeldRow> {
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
      const copies = Map.groupBy(this.copies(ids), ({ id }) => id)
      const pending = Map.groupBy(this.clicks(ids), ({ id }) => id)
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

  /** Messages of all nodes, or of one, with at least one undecided recipient. */
  count(owner?: string): number {
    return this.#count(and(owner === undefined ? undefined : eq(held.owner, owner), UNDECIDED))
  }

  /** Undecided ones of all nodes for which a click waits for an owner that is away. */
  countAsked(): number {
    const asked = this.#store.query
      .select({ one: sql`1` })
      .from(heldPending)
      .where(eq(heldPending.id, held.id))
    return this.#count(and(UNDECIDED, exists(asked)))
  }

  /** Those of `owner` that nobody has asked for although their time is over. */
  expired(owner: NodeId, nowMs: number, limit: number): readonly MessageId[] {
    const asked = this.#store.query
      .select({ one: sql`1` })
      .from(heldPending)
      .where(eq(heldPending.id, held.id))
    const over = and(UNDECIDED, lte(held.expiresMs, nowMs), notExists(asked))
    return this.#ids(and(eq(held.owner, owner), over), limit)
  }

  /** Those of `owner` that are decided since `beforeMs`, and of which nothing waits for the queue. */
  removable(owner: NodeId, beforeMs: number, limit: number): readonly MessageId[] {
    const over = and(
      sql`${held.undecided} = 0`,
      lte(held.decidedMs, beforeMs),
      isNull(held.bodyGoneMs),
      notInArray(held.id, this.#unsent()),
    )
    return this.#ids(and(eq(held.owner, owner), over), limit)
  }

  /** Those of `owner` with a body still to be had, after `after` in order of id. */
  withBody(owner: NodeId, after: string, limit: number): readonly MessageId[] {
    const rest = and(isNull(held.bodyGoneMs), gt(held.id, after))
    return this.#ids(and(eq(held.owner, owner), rest), limit)
  }

  /** Undecided ones of `owner` whose body it does not find, and that somebody else has. */
  missing(owner: NodeId, limit: number): readonly MessageId[] {
    const lost = and(isNotNull(held.bodyGoneMs), sql`${held.holders} <> ''`, this.#wanted())
    return this.#ids(and(eq(held.owner, owner), lost), limit)
  }

  /** Those of `owner` that are wanted, were held before `beforeMs`, and that none of `living` has. */
  alone(
    owner: NodeId,
    living: readonly NodeId[],
    from: { readonly beforeMs: number; readonly after: string },
    limit: number,
  ): readonly MessageId[] {
    const rest = gt(held.id, from.after)
    return this.#ids(and(this.#isAlone(owner, living, from.beforeMs), rest), limit)
  }

  countAlone(owner: NodeId, living: readonly NodeId[], beforeMs: number): number {
    return this.#count(this.#isAlone(owner, living, beforeMs))
  }

  /** Messages of `owner` that are undecided, or whose release is not known to be in its queue. */
  countWanted(owner: NodeId): number {
    return this.#count(and(eq(held.owner, owner), this.#wanted()))
  }

  /** Those of others whose only holder in `staying` would be their owner without `node`. */
  countSecond(node: NodeId, staying: readonly NodeId[]): number {
    const has = staying.map((other) => sql`${held.holders} like ${`% ${other} %`}`)
    const only = and(sql`${held.holders} like ${`% ${node} %`}`, not(or(...has) ?? sql`0`))
    return this.#count(and(only, not(eq(held.owner, node)), isNull(held.bodyGoneMs), UNDECIDED))
  }

  /** Own ones that were held later than `afterMs`. */
  countSince(owner: NodeId, afterMs: number): number {
    return this.#count(and(eq(held.owner, owner), UNDECIDED, gt(held.heldMs, afterMs)))
  }

  ownerOfAll(): ReadonlyMap<MessageId, NodeId> {
    const rows = this.#store.attempt(() =>
      this.#store.query.select({ id: held.id, owner: held.owner }).from(held).all(),
    )
    return new Map(rows.map(({ id, owner }) => [id as MessageId, owner as NodeId]))
  }

  countClicked(): number {
    const clicked = this.#store.query.select({ id: heldPending.id }).from(heldPending)
    return this.#count(and(UNDECIDED, inArray(held.id, clicked)))
  }

  /** Those that say of `node` that it has their body, and are of somebody else. */
  heldBy(node: NodeId): readonly MessageId[] {
    const named = and(sql`${held.holders} like ${`% ${node} %`}`, not(eq(held.owner, node)))
    return this.#ids(named, Number.MAX_SAFE_INTEGER)
  }

  /** Those of `ids` that `owner` owns, and whether their rows say that it has no sealed file. */
  goneOf(owner: NodeId, ids: readonly MessageId[]): ReadonlyMap<MessageId, boolean> {
    const { id, bodyGoneMs } = held
    const found = this.#store.attempt(() =>
      this.#store.query
        .select({ id, bodyGoneMs })
        .from(held)
        .where(and(inArray(id, [...ids]), eq(held.owner, owner)))
        .all(),
    )
    return new Map(found.map((one) => [one.id as MessageId, one.bodyGoneMs !== null]))
  }

  /** Those of `ids` that are of somebody else than `node`. */
  othersOf(node: NodeId, ids: readonly MessageId[]): readonly MessageId[] {
    return this.#ids(and(inArray(held.id, [...ids]), not(eq(held.owner, node))), ids.length)
  }

  /**
   * Those of `ids` that name `node` as one that has their body, or may have it. Not what its first
   * owner holds since `beforeMs`: a holder writes the file of that in these moments.
   */
  namedAt(node: NodeId, ids: readonly MessageId[], beforeMs: number): readonly MessageId[] {
    const settled = or(lte(held.heldMs, beforeMs), gt(held.term, 1))
    const has = and(sql`${held.holders} like ${`% ${node} %`}`, settled)
    const named = or(has, sql`${held.perhaps} like ${`% ${node} %`}`)
    return this.#ids(and(inArray(held.id, [...ids]), named), ids.length)
  }

  /** Owners of mail with a body, each once. */
  owners(): readonly NodeId[] {
    return this.#store.attempt(() =>
      this.#store.query
        .selectDistinct({ owner: held.owner })
        .from(held)
        .where(isNull(held.bodyGoneMs))
        .orderBy(asc(held.owner))
        .all()
        .map(({ owner }) => owner as NodeId),
    )
  }

  copies(ids: readonly string[]): readonly (HeldCopy & { readonly id: string })[] {
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

  clicks(ids: readonly string[]): readonly Click[] {
    return this.#store.query
      .select()
      .from(heldPending)
      .where(inArray(heldPending.id, [...ids]))
      .orderBy(asc(heldPending.stamp), asc(heldPending.key))
      .all()
  }

  #unsent() {
    return this.#store.query
      .select({ id: heldCopies.id })
      .from(heldCopies)
      .where(and(eq(heldCopies.kind, 'release'), isNull(heldCopies.enqueuedMs)))
  }

  #wanted(): SQL | undefined {
    return or(UNDECIDED, inArray(held.id, this.#unsent()))
  }

  #isAlone(owner: NodeId, living: readonly NodeId[], beforeMs: number): SQL | undefined {
    const has = living.map((node) => sql`${held.holders} like ${`% ${node} %`}`)
    return and(
      eq(held.owner, owner),
      isNull(held.bodyGoneMs),
      UNDECIDED,
      lte(held.heldMs, beforeMs),
      has.length === 0 ? undefined : not(or(...has) ?? sql`0`),
    )
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

  #count(condition: SQL | undefined): number {
    return this.#store.attempt(
      () =>
        this.#store.query.select({ count: sql<number>`count(*)` }).from(held).where(condition).get()
          ?.count ?? 0,
    )
  }

  #entryOf(stored: Stored, copies: readonly HeldCopy[], pending: readonly Click[]): HeldEntry {
    const { findings, unknowns } = JSON.parse(stored.reasons) as {
      readonly findings: readonly Finding[]
      readonly unknowns: readonly Unknown[]
    }
    const named = (node: string) => nodeName(this.#nodes, node as NodeId)
    return {
      row: {
        // Only ids of ours are ever written, here and by peers.
        id: stored.id as MessageId,
        owner: named(stored.owner),
        holders: nodesOf(stored.holders).map(named),
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
        pending: this.#waiting(copies, pending),
      },
      copies: copies.map(({ place, address, claim, enqueuedMs }) => ({
        place,
        address,
        claim,
        enqueuedMs,
      })),
      bodyGone: stored.bodyGoneMs !== null,
      term: stored.term,
      perhaps: nodesOf(stored.perhaps),
      doubtMs: stored.doubtMs,
    }
  }

  /** One for each recipient that waits: the first, but a release before a deletion. */
  #waiting(copies: readonly HeldCopy[], pending: readonly Click[]): readonly PendingClaim[] {
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
      seen: null,
      score: held.score,
      sizeBytes: held.sizeBytes,
      state: (state) => (state === 'unknown' ? gt(held.unknownCount, 0) : gt(held.undecided, 0)),
      node: (text) => inArray(held.owner, nodesNamed(this.#nodes, text)),
    }
  }
}
