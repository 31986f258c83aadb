/**
 * Held mail of all nodes, and the claims about it. Each message has one owner: it alone decides and
 * writes its rows. It has a sealed file, which is the truth for what is held there, and so have the
 * holders that its row names. Claims stand only in the rows, so every commit is synced.
 */
import { and, asc, desc, eq, isNull } from 'drizzle-orm'
import type { Clock, Timer } from '../base/clock.ts'
import { assert, StoreError } from '../base/errors.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { Claim, HeldRow, NodeName } from '../message/rows.ts'
import type { Bodies, HeldMail } from './bodies.ts'
import type { StoreDatabase } from './db.ts'
import { afterWord, type Doubled, doubtedFor, type TakeoverDoubt } from './held-doubt.ts'
import { heldProjection, pendingProjection, WORDS } from './held-index.ts'
import { type HeldEntry, HeldList } from './held-list.ts'
import { type Former, type PendingValue, readHeldKey } from './held-row.ts'
import { HeldWriter, type Holding, isForeword, NOBODY } from './held-writer.ts'
import type { NodeNames } from './names.ts'
import { FIELDS, type Field, type Query, type State } from './query.ts'
import type { SharedRows } from './shared.ts'
import { held, heldCopies, heldFormer, heldPending } from './tables.ts'
import type { Found } from './trace.ts'

export type { Doubled, TakeoverDoubt } from './held-doubt.ts'
export type { HeldCopy, HeldEntry } from './held-list.ts'

/** What `is:` may ask of held mail. */
export const HELD_STATES: readonly State[] = ['held', 'unknown']
/** What was seen in a mail is kept with its trace only. */
export const HELD_FIELDS: readonly Field[] = FIELDS.filter(
  (field) => field !== 'link' && field !== 'file',
)

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
  /** Null: somebody clicked. */
  readonly former: Former | null
}

export class Quarantine {
  readonly #store: StoreDatabase
  readonly #rows: SharedRows
  readonly #clock: Clock
  readonly #observer: Observer
  readonly #list: HeldList
  readonly #writer: HeldWriter
  /** This one, the owner of what it holds. */
  readonly node: NodeName
  #waiting: { readonly mail: HeldMail; readonly holding: Holding }[] = []
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
    this.#list = new HeldList(store, deps.nodes ?? (() => [node]))
    this.#writer = new HeldWriter(rows, {
      clock: deps.clock,
      node: node.id,
      ownerOf: (id) => this.#list.ownerOf(id),
    })
    this.node = node
    rows.project('held', heldProjection(store, node.id))
    rows.project('pending', pendingProjection(store))
  }

  /**
   * Adds a message whose sealed file is already durable. Never waits, never throws: rows are
   * written together within 200 ms, and every question sees them.
   */
  add(mail: HeldMail, holding: Holding = NOBODY): void {
    this.#observer.emit('mail.held', { message: mail.row.id })
    if (this.#waiting.length >= WAITING_MAX) return
    this.#waiting.push({ mail, holding })
    const delayMs = this.#waiting.length === FLUSH_ROWS ? 0 : FLUSH_MS
    if (delayMs === 0) this.#timer?.cancel()
    if (this.#timer === null || delayMs === 0) {
      this.#timer = this.#clock.after(delayMs, () => this.flush())
    }
  }

  /**
   * Shows a message of another owner that died before it told of it: this node has the sealed
   * file. Whatever its owner says of it counts before this. @throws StoreError
   */
  show(mail: HeldMail): void {
    const { row, owner } = mail
    if (owner === undefined || owner === this.node.id || this.isKnown(row.id)) return
    const holding = { holders: [this.node.id], perhaps: [] }
    this.#rows.transact(() => this.#writer.write(mail, owner, holding))
  }

  /** A row of it is here, of whichever node. */
  isKnown(id: MessageId): boolean {
    return this.#rows.owned('held', id) !== null
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
      const owner = this.#list.ownerOf(id)
      assert(owner === null || owner === this.node.id, 'only its owner decides about a mail')
      return this.#decide(id, places, claim)
    })
  }

  /**
   * Becomes the owner of a message of a node that is gone, or that gives it up, with every doubt
   * that there was before. Without its body it can only be deleted. @throws StoreError
   */
  takeOver(
    id: MessageId,
    how: { readonly hasBody: boolean; readonly doubt: TakeoverDoubt | null },
  ): void {
    const me = this.node.id
    const { doubt } = how
    const places = this.#list.copies([id]).map(({ place }) => place)
    const wasDoubted = this.#doubtedOf(id, places).length > 0
    this.#writer.change(
      id,
      (copy) =>
        doubt?.places?.includes(copy.place) === true && copy.doubtMs === undefined
          ? { ...copy, doubtMs: copy.claim?.atMs ?? doubt.sinceMs }
          : copy,
      ({ bodyGoneMs: _, ...first }) => ({
        ...doubtedFor(doubt, first, wasDoubted),
        holders: without(first.holders, [me]),
        // It may come back, and it may have the body then.
        perhaps: [...without(first.perhaps, [me, first.owner]), first.owner].filter(
          (node) => node !== me && !(first.holders ?? []).includes(node),
        ),
        ...(how.hasBody ? {} : { bodyGoneMs: this.#clock.wallMs() }),
      }),
      me,
    )
  }

  /**
   * The owner before has told all that it had decided about an own message. False: no doubt was
   * there that this ends. @throws StoreError
   */
  endDoubt(id: MessageId, former: NodeId): boolean {
    if (this.#list.ownerOf(id) !== this.node.id || this.doubtOf(id) !== former) return false
    this.#writer.own(
      id,
      ({ doubtMs: _, ...copy }) => copy,
      ({ doubtMs: _, doubtOf: __, ...first }) => first,
    )
    return true
  }

  /** Whose word ends what is in doubt about a message; null: nothing is, or nobody's does. */
  doubtOf(id: MessageId): NodeId | null {
    return this.#writer.parts(id)[0]?.value.doubtOf ?? null
  }

  /** Those of `places` of an own message that an owner before may have sent. @throws StoreError */
  doubted(id: MessageId, places: readonly number[]): readonly number[] {
    return this.#list.ownerOf(id) === this.node.id ? this.#doubtedOf(id, places) : []
  }

  #doubtedOf(id: MessageId, places: readonly number[]): readonly number[] {
    const parts = this.#writer.parts(id)
    if (parts[0]?.value.doubtMs !== undefined) return places
    const copies = parts.flatMap(({ value }) => value.copies)
    const doubted = new Set(
      copies.flatMap(({ place, doubtMs }) => (doubtMs === undefined ? [] : [place])),
    )
    return places.filter((place) => doubted.has(place))
  }

  /** Who has the body of an own message has changed. Others' are passed over. @throws StoreError */
  setHolding(
    id: MessageId,
    change: {
      readonly has?: readonly NodeId[]
      readonly lost?: readonly NodeId[]
      readonly perhaps?: readonly NodeId[]
    },
  ): void {
    const { has = [], lost = [], perhaps = [] } = change
    this.#writer.own(
      id,
      (copy) => copy,
      (first) => {
        const holders = [...without(first.holders, [...has, ...lost]), ...has]
        const others = [...without(first.perhaps, perhaps), ...perhaps]
        return { ...first, holders, perhaps: without(others, [...holders, ...lost]) }
      },
    )
  }

  /**
   * What a former owner had decided becomes part of what stands here: a release counts before a
   * deletion. What it sent does not go out here then. Gives the copies that this decides, as they
   * stand, and the recipients of those that both have sent, or may have, as far as nobody told of
   * that before. @throws StoreError
   */
  merge(
    id: MessageId,
    places: readonly number[],
    claim: Claim,
    word: Former,
  ): { readonly claimed: readonly Claimed[]; readonly doubled: readonly Doubled[] } {
    return this.#rows.transact(() => {
      const before = this.#list.copies([id]).filter(({ place }) => places.includes(place))
      const isOver = (stands: Claim | null): boolean =>
        stands === null || (claim.kind === 'release' && stands.kind !== 'release')
      const decided = word === 'perhaps' ? [] : before
      const over = new Set(decided.flatMap((copy) => (isOver(copy.claim) ? [copy.place] : [])))
      const told = { word, claim, nowMs: this.#clock.wallMs() }
      const doubled: Doubled[] = []
      this.#writer.own(id, (copy) => {
        if (!places.includes(copy.place)) return copy
        const after = afterWord(over.has(copy.place) ? { ...copy, claim } : copy, told)
        if (after.doubled !== null) doubled.push(after.doubled)
        return after.copy
      })
      const answered = this.#list
        .clicks([id])
        .filter(({ place, former }) => places.includes(place) && isAnswered(former, word))
      this.#writer.answer(answered.map(({ key }) => key))
      return {
        doubled,
        claimed: decided.map(({ place, address, claim: stands, enqueuedMs: before }) => ({
          place,
          address,
          won: over.has(place),
          claim: over.has(place) || stands === null ? claim : stands,
          enqueued: word === 'sent' || before !== null,
        })),
      }
    })
  }

  /**
   * Tells the next owners what this node had decided about their mail while they did not know of
   * it; where it is the owner itself still, that waits to be run as theirs would, and what had
   * expired has so again. Gives how many copies of others wait for their owners now, and of its own.
   * @throws StoreError
   */
  tellFormer(): { readonly others: number; readonly own: number } {
    return this.#rows.transact(() => {
      let own = 0
      let others = 0
      const { query } = this.#store
      const former = query.select().from(heldFormer).orderBy(asc(heldFormer.id)).all()
      for (const { id, place, kind, decidedBy: by, decidedMs: atMs, sent } of former) {
        if (kind === 'expire') continue
        const to = this.#list.ownerOf(id as MessageId)
        if (to === null) continue
        if (to === this.node.id) own += 1
        else others += 1
        this.#writer.leave(id as MessageId, place, {
          kind,
          by,
          atMs,
          to,
          former: WORDS[sent] ?? 'claimed',
        })
      }
      this.#expireAgain(former.filter(({ kind }) => kind === 'expire'))
      if (former.length > 0) query.delete(heldFormer).run()
      return { others, own }
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
      const to = this.#list.ownerOf(id)
      if (to === null) return []
      const decided = new Set(
        this.#list.copies([id]).flatMap(({ place, claim }) => (claim === null ? [] : [place])),
      )
      const asked = new Set(this.#list.clicks([id]).map(({ place }) => place))
      const fresh = places.filter((place) => !decided.has(place) && !asked.has(place))
      const value: PendingValue = { kind, by, atMs: this.#clock.wallMs(), to }
      for (const place of fresh) this.#writer.leave(id, place, value)
      return fresh
    })
  }

  /**
   * Clicks for messages of this node that wait to be run, oldest first. Of several that were made
   * apart a release counts before a deletion, then the first. Those about what is decided are
   * answered by that and go. What former owners had decided comes first, of each. @throws StoreError
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
        .orderBy(
          desc(heldPending.former),
          desc(heldPending.kind),
          asc(heldPending.stamp),
          asc(heldPending.key),
        )
        .all()
      const clicks = new Map<
        string,
        { id: MessageId; places: number[]; claim: Claim; former: Asked['former'] }
      >()
      const seen = new Set<string>()
      for (const { held_pending: pending, held_copy: copy } of waiting) {
        const { id, place, kind, askedBy: by, askedMs, addressee, former } = pending
        const isOver = former === 'sent' || (former !== null && kind === 'release')
        if (copy === null || (copy.kind !== null && !isOver)) {
          this.#writer.answer([pending.key])
          continue
        }
        const name = `${id} ${place}`
        if (addressee !== this.node.id || (former === null && seen.has(name))) continue
        if (former !== 'perhaps') seen.add(name)
        const key = `${id} ${kind} ${by} ${askedMs} ${former}`
        const atMs = former === null ? this.#clock.wallMs() : askedMs
        const click = clicks.get(key) ?? {
          id: id as MessageId,
          places: [],
          claim: { kind, by, atMs },
          former,
        }
        click.places.push(place)
        clicks.set(key, click)
      }
      return [...clicks.values()]
    })
  }

  /** Called with the messages whose rows changed here, and whether a peer did it. */
  onChanged(listener: (ids: readonly MessageId[], origin: 'own' | 'peer') => void): void {
    this.#rows.onChange('held', ({ keys, origin }) => {
      listener([...new Set(keys.flatMap((key) => readHeldKey(key)?.id ?? []))], origin)
    })
  }

  /** Called after clicks came in from peers. */
  onAsked(listener: () => void): void {
    this.#rows.onChange('pending', ({ origin }) => {
      if (origin === 'peer') listener()
    })
  }

  /**
   * Notes that the copies are in the queue of this node, durably. Somebody who took the message over
   * meanwhile is told. `doubted`: those that an owner before may have sent, as it stood when this
   * node sent them. Gives how many may arrive twice, for what was not known before. @throws StoreError
   */
  markEnqueued(
    id: MessageId,
    places: readonly number[],
    claim: Claim,
    doubted: readonly number[] = [],
  ): number {
    const enqueuedMs = this.#clock.wallMs()
    const to = this.#list.ownerOf(id)
    const inDoubt = new Set(places.filter((place) => doubted.includes(place)))
    if (to === null || to === this.node.id) {
      this.#writer.own(id, (copy) => {
        if (!places.includes(copy.place)) return copy
        if (copy.enqueuedMs === undefined) {
          return { ...copy, enqueuedMs, ...(inDoubt.has(copy.place) && { countedMs: enqueuedMs }) }
        }
        // A former owner has told that it sent it too, while it went out here.
        inDoubt.add(copy.place)
        return copy
      })
      return inDoubt.size
    }
    const { by, atMs } = claim
    this.#rows.transact(() => {
      for (const place of places) {
        this.#writer.leave(id, place, { kind: 'release', by, atMs, to, former: 'sent' })
      }
    })
    return inDoubt.size
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
    return this.read((list) => list.one(id))
  }

  /** What is held now, newest first. @throws RefusalError for a cursor that is none; StoreError */
  search(
    query: Query,
    page: { readonly limit: number; readonly cursor: string | null },
  ): Found<HeldRow> {
    return this.read((list) => list.search(query, page))
  }

  /** Messages of all nodes with at least one undecided recipient. @throws StoreError */
  count(): number {
    return this.read((list) => list.count())
  }

  /** Those that a node owns. @throws StoreError */
  countOf(owner: string): number {
    return this.read((list) => list.count(owner))
  }

  /** Messages of this node whose time is over and that nobody asked for. @throws StoreError */
  expired(nowMs: number, limit: number): readonly MessageId[] {
    return this.read((list) => list.expired(this.node.id, nowMs, limit))
  }

  /**
   * Messages of this node all of whose recipients were decided at `beforeMs` or earlier, with no
   * release waiting for the queue: their sealed file may go. @throws StoreError
   */
  removable(beforeMs: number, limit: number): readonly MessageId[] {
    return this.read((list) => list.removable(this.node.id, beforeMs, limit))
  }

  /** Any other question to the index, with everything in it that was added. @throws StoreError */
  read<Result>(ask: (list: HeldList) => Result): Result {
    this.flush()
    return ask(this.#list)
  }

  /**
   * The sealed file of a message of this node is not there. When it is decided, every node
   * forgets it in time: with the file there, a rebuild would hold a released mail again.
   * @throws StoreError
   */
  markBodyGone(id: MessageId): void {
    this.#markBody(id, this.#clock.wallMs())
  }

  /** It is there again. @throws StoreError */
  markBodyThere(id: MessageId): void {
    this.#markBody(id, null)
  }

  /** Its owner has told of it; else another node did, that has its file. */
  isOwnersWord(id: MessageId): boolean {
    const row = this.#rows.owned('held', id)
    return row !== null && !isForeword(row)
  }

  /** Which row of the owner this is: the next one has another text. @throws StoreError */
  versionOf(id: MessageId): string {
    return this.#writer
      .parts(id)
      .map(({ version }) => version.join('.'))
      .join(' ')
  }

  /** Held mails with a click that waits for an owner. @throws StoreError */
  waiting(): number {
    return this.read((list) => list.countClicked())
  }

  /**
   * Makes rows and sealed files of this node agree: adds rows for files that have none (a crash, a
   * lost database), and marks rows whose file is missing, or is there again. For the start. Gives
   * how many were added, and the ids of files that cannot be read.
   * @throws StoreError when the database refuses
   */
  async rebuild(
    bodies: Pick<Bodies, 'list' | 'meta'>,
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
        // A file of another owner is a copy: that one says what is held.
        if (mail === null || (mail.owner ?? this.node.id) !== this.node.id) continue
        this.#waiting.push({ mail, holding: NOBODY })
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
    const added = this.#waiting
    this.#rows.transact(() => {
      for (const { mail, holding } of added) this.#writer.write(mail, this.node.id, holding)
    })
    this.#waiting = []
  }

  #markBody(id: MessageId, bodyGoneMs: number | null): void {
    this.#writer.own(
      id,
      (copy) => copy,
      ({ bodyGoneMs: _, ...first }) => (bodyGoneMs === null ? first : { ...first, bodyGoneMs }),
    )
  }

  /** Inside a transaction. */
  #expireAgain(former: readonly (typeof heldFormer.$inferSelect)[]): void {
    const claims = Map.groupBy(former, ({ id, decidedMs }) => `${id} ${decidedMs}`)
    for (const copies of claims.values()) {
      const [first] = copies
      const id = first?.id as MessageId
      if (first === undefined || this.#list.ownerOf(id) !== this.node.id) continue
      const claim: Claim = { kind: 'expire', by: first.decidedBy, atMs: first.decidedMs }
      const places = copies.map(({ place }) => place)
      this.#decide(id, places, claim)
    }
  }

  /** Inside a transaction. */
  #decide(id: MessageId, places: readonly number[] | null, claim: Claim): readonly Claimed[] {
    const wanted = this.#list
      .copies([id])
      .filter(({ place }) => places === null || places.includes(place))
    const open = new Set(wanted.filter((copy) => copy.claim === null).map(({ place }) => place))
    if (open.size > 0) {
      this.#writer.own(id, (copy) => (open.has(copy.place) ? { ...copy, claim } : copy))
    }
    const answered = this.#list.clicks([id]).filter(({ place }) => open.has(place))
    this.#writer.answer(answered.map(({ key }) => key))
    return wanted.map(({ place, address, claim: before, enqueuedMs }) => ({
      place,
      address,
      won: before === null,
      claim: before ?? claim,
      enqueued: enqueuedMs !== null,
    }))
  }
}

/** What may have gone out decides nothing: a click waits on. */
function isAnswered(former: Former | null, word: Former): boolean {
  return word !== 'perhaps' || former === 'perhaps'
}

function without(nodes: readonly NodeId[] | undefined, gone: readonly NodeId[]): readonly NodeId[] {
  return (nodes ?? []).filter((node) => !gone.includes(node))
}
