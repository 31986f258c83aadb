/**
 * The rows of one feed, exchanged with every peer. A node reads along each peer's feed: it pulls,
 * by its cursor, one batch at a time; what a node writes itself it also pushes at once, and what
 * of that is lost the next batch brings. Beats say how far each has come (design: cluster.md).
 *
 * A peer's vector is taken over only with the last batch, and what a peer says that it covers is
 * durable there: it is the acknowledgement by which tombstones go.
 */
import type { Clock, Timer } from '../base/clock.ts'
import { messageOf, RefusalError, StoreError } from '../base/errors.ts'
import type { NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { Random } from '../base/random.ts'
import { covers, meetVectors, type Vector, type WriterId } from '../config/merge.ts'
import type { Cursor, Feed, Incoming, OwnWrite, Place } from '../store/feed.ts'
import { type Link, MESSAGE, MESSAGE_BYTES_MAX, type Roster } from './contract.ts'
import { Repair } from './repair.ts'
import {
  type Batch,
  type DigestStep,
  encodeBatch,
  encodePull,
  encodePush,
  type FeedBeat,
  type Pull,
  type Push,
  type RepairStep,
  WRITERS_MAX,
} from './wire.ts'

const BATCH_BYTES = 128 * 1024
/** What is longer is left to batches. */
const PUSH_BYTES_MAX = 256 * 1024
/** So much is longer, with what a mail has to say; rows of it would be read for nothing. */
const PUSHED_WRITES_MAX = 400
/**
 * Rows a second that a peer may push; more are left to batches, which we ask for (faults.md K06). A
 * node that relays all it can, about 3,500 mails a second, tells of each of them twice.
 */
const PUSHED_ROWS_MAX = 10_000
const FLOODED_MS = 10_000
/** Peers that this node catches up with at once; more would send it the same rows. */
const CATCH_UPS_MAX = 3
/** A catch-up that stood still for so long lets the next one begin. */
const STALL_MS = 2_000
/** A pull that was not answered for so long is asked again. */
const ANSWER_MS = 60_000
/** The store does not take rows: wait, and twice as long each time. */
const RETRY_MS_MIN = 1_000
const RETRY_MS_MAX = 60_000
/** Nothing is taken for so long from a peer whose rows were none. */
const BARRED_MS = 60_000
/** Roots must differ for nearly two beats: what is under way makes them differ for less. */
const DIFFERS_MS = 4_000
/** Places by which a cursor may run ahead of the one that is kept, when there was nothing to keep. */
const REACH_MAX = 10_000
/** Nodes that pass a push on to one that cannot be reached by its writer. */
const RELAYS = 2
/** Writers whose last push that was passed on is remembered; vectors told by a peer. */
const RELAYED_MAX = 4_096
const PEER_WRITERS_MAX = 200_000
const ROOT_MS = 500

/** What a peer last said of its feed; kept when the link is lost. */
type Peer = {
  readonly node: NodeId
  generation: string | null
  head: Place
  vector: Map<WriterId, number>
  /** Its vector has been told to the end on this link; and at any time since our start. */
  isWhole: boolean
  isKnown: boolean
  root: string | null
  parked: number
  waits: boolean
  /** Further than the cursor that is kept: there was nothing between them. */
  reached: Cursor | null
  /** It gave its final batch since its last beat. */
  isRead: boolean
  differsMono: number | null
  /** Our vector at a time when the peer did not cover it. */
  lags: { readonly vector: Vector; readonly sinceMono: number } | null
  barredUntilMono: number
}

/** A write of one process. */
export type Point = { readonly writer: WriterId; readonly seq: number }

/** One link, and what was said on it. */
type Line = {
  readonly link: Link
  told: {
    vector: Map<WriterId, number> | null
    generation: string | null
    head: Place
    root: string | null
    parked: number
    waits: boolean
  }
  asked: { readonly sinceMono: number; readonly catchesUp: boolean } | null
  owed: Pull | null
  /** The answer is made when the link has room. */
  owedWaits: boolean
  windowMono: number
  windowRows: number
  floodedUntilMono: number
}

/** What the exchange needs to know of the rest. */
export type Surroundings = {
  readonly node: NodeId
  readonly roster: Roster
  /** This node began without the rows of the feed: until it has caught up it vouches for nothing. */
  readonly awaits: boolean
  /** Rows that wait for their time here. */
  readonly parked: () => number
  /** Whether `node` has said that it has no usable link with `other`. */
  isApart(node: NodeId, other: NodeId): boolean
  /** Sends a beat now; and one as soon as the link takes it. */
  tell(link: Link): void
  tellLater(link: Link): void
  /** Sends a beat within half a second: something of the peer is on our disk now. */
  acknowledge(link: Link): void
}

/** What the first beat on a link leaves out when it is so. */
const SILENT = { generation: null, head: 0, root: null, parked: 0, waits: false } as const

type Deps = { readonly clock: Clock; readonly random: Random; readonly observer: Observer }

export class Exchange {
  readonly #feed: Feed
  readonly #around: Surroundings
  readonly #clock: Clock
  readonly #observer: Observer
  readonly #repair: Repair
  readonly #startMono: number
  readonly #peers = new Map<NodeId, Peer>()
  readonly #lines = new Map<NodeId, Line>()
  readonly #relayed = new Map<WriterId, number>()
  readonly #onCaughtUp: (() => void)[] = []
  #root: { readonly text: string | null; readonly atMono: number } | null = null
  #caughtUp = false
  #pausedUntilMono = 0
  #retryMs = RETRY_MS_MIN
  #retry: Timer | null = null

  constructor(feed: Feed, around: Surroundings, deps: Deps) {
    this.#feed = feed
    this.#around = around
    this.#clock = deps.clock
    this.#observer = deps.observer
    this.#repair = new Repair(feed, deps)
    this.#startMono = deps.clock.monoMs()
    feed.onOwn((write) => this.#push(write))
  }

  get name(): Feed['name'] {
    return this.#feed.name
  }

  get repaired(): number {
    return this.#repair.repaired
  }

  /** A final batch of a peer that does not wait itself was applied since the start, or there is nobody to ask. */
  get caughtUp(): boolean {
    return this.#caughtUp || this.#around.roster.peers().length === 0
  }

  onCaughtUp(listener: () => void): void {
    this.#onCaughtUp.push(listener)
  }

  close(): void {
    this.#retry?.cancel()
    this.#lines.clear()
  }

  opened(link: Link): void {
    const peer = this.#peer(link.peer)
    // It may be another run of the peer: nothing is done before it has spoken.
    peer.isWhole = false
    Object.assign(peer, { ...SILENT, differsMono: null })
    this.#lines.set(link.peer, {
      link,
      told: { ...SILENT, vector: null },
      asked: null,
      owed: null,
      owedWaits: false,
      windowMono: this.#clock.monoMs(),
      windowRows: 0,
      floodedUntilMono: 0,
    })
  }

  closed(link: Link): void {
    this.#repair.closed(link)
    if (this.#lines.get(link.peer)?.link !== link) return
    this.#lines.delete(link.peer)
    this.#considerAll()
  }

  /** Who left has no say in what is durable, and comes back as somebody else. */
  forget(node: NodeId): void {
    this.#peers.delete(node)
  }

  /** Looks again at whoever waits. */
  tick(): void {
    for (const peer of this.#peers.values()) this.#mark(peer)
    this.#considerAll()
  }

  // ---- beats ----

  /** What is new for the peer since it was told last; null: nothing. `note` when it was sent. */
  say(link: Link): { readonly part: FeedBeat; readonly note: () => void } | null {
    const line = this.#lines.get(link.peer)
    if (line?.link !== link) return null
    const { told } = line
    const { generation, head } = this.#feed
    const mine = this.#feed.vector()
    const shrunk =
      told.vector === null || [...told.vector].some(([writer, seq]) => !covers(mine, writer, seq))
    const fresh = newerIn(mine, shrunk ? new Map() : (told.vector ?? new Map()))
    const root = this.#rootNow()
    const parked = this.#around.parked()
    const waits = this.#around.awaits && !this.caughtUp
    const part = {
      feed: this.#feed.name,
      generation: generation === told.generation ? null : generation,
      head: head === told.head ? null : head,
      vector: fresh.size === 0 ? null : new Map([...fresh].slice(0, WRITERS_MAX)),
      anew: shrunk,
      more: fresh.size > WRITERS_MAX,
      root: root === told.root ? null : root,
      parked: parked === told.parked ? null : parked,
      waits: waits === told.waits ? null : waits,
    }
    const { feed: _, ...news } = part
    if (Object.values(news).every((value) => value === null || value === false)) return null
    const note = (): void => {
      const vector = new Map(shrunk ? [] : told.vector)
      for (const [writer, seq] of part.vector ?? []) vector.set(writer, seq)
      line.told = { vector, generation, head, root, parked, waits }
    }
    return { part, note }
  }

  /** A beat has come; `part` null: nothing is new in this feed. */
  heard(link: Link, part: FeedBeat | null): void {
    this.#attempt(link, (line, peer) => {
      if (part !== null) takeNews(peer, part)
      if (peer.vector.size > PEER_WRITERS_MAX) {
        throw new RefusalError('invalid', null, 'A peer covers too many writers.', '')
      }
      peer.isRead = false
      this.#mark(peer)
      this.#answer(line, peer)
      this.#consider(line, peer)
      this.#compareRoots(line, peer)
    })
  }

  #rootNow(): string | null {
    const monoMs = this.#clock.monoMs()
    // Not for each of a hundred links of one beat.
    if (this.#root === null || monoMs - this.#root.atMono >= ROOT_MS) {
      this.#root = { text: this.#readRoot(), atMono: monoMs }
    }
    return this.#root.text
  }

  #readRoot(): string | null {
    try {
      return this.#feed.digest()?.root ?? null
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      this.#observer.emit('sync.stalled', { feed: this.#feed.name, detail: messageOf(error) })
      return null
    }
  }

  // ---- what peers have ----

  /** It waits for the rows of the feed itself. */
  isWaiting(node: NodeId): boolean {
    return this.#peers.get(node)?.waits ?? false
  }

  /** What every member has durably taken; null while one was not heard since the start. */
  durable(): Vector | null {
    let least = this.#feed.vector()
    for (const { node } of this.#around.roster.peers()) {
      const peer = this.#peers.get(node)
      if (peer === undefined || !peer.isKnown) return null
      least = meetVectors(least, peer.vector)
    }
    return least
  }

  /** The last write of this process. */
  point(): Point {
    const { writer } = this.#feed
    return { writer, seq: this.#feed.vector().get(writer) ?? 0 }
  }

  /** The peer has durably taken a write, and we have all that it had when it said so. */
  hasTaken(node: NodeId, { writer, seq }: Point): boolean {
    const peer = this.#peers.get(node)
    if (peer === undefined || !peer.isKnown || !covers(peer.vector, writer, seq)) return false
    return isCovered(peer.vector, this.#feed.vector())
  }

  /** We have all that the peer has said to have. */
  hasReadAll(node: NodeId): boolean {
    const peer = this.#peers.get(node)
    return peer?.isKnown === true && isCovered(peer.vector, this.#feed.vector())
  }

  /** Writes that we cover and the peer has not acknowledged, and since when, within a beat. */
  lagOf(node: NodeId): { readonly rows: number; readonly ms: number } {
    const peer = this.#peers.get(node)
    let rows = 0
    for (const [writer, seq] of this.#feed.vector()) {
      rows += Math.max(0, seq - (peer?.vector.get(writer) ?? 0))
    }
    if (rows === 0) return { rows, ms: 0 }
    const nowMono = this.#clock.monoMs()
    if (peer?.isKnown) return { rows, ms: Math.round(nowMono - (peer.lags?.sinceMono ?? nowMono)) }
    // Not heard since our start, or since it was let in.
    const admittedMs = this.#around.roster.get(node)?.admittedMs ?? 0
    const memberMs = Math.max(0, this.#clock.wallMs() - admittedMs)
    return { rows, ms: Math.round(Math.min(nowMono - this.#startMono, memberMs)) }
  }

  #mark(peer: Peer): void {
    if (!peer.isKnown || (peer.lags !== null && !isCovered(peer.lags.vector, peer.vector))) return
    const mine = this.#feed.vector()
    peer.lags = isCovered(mine, peer.vector)
      ? null
      : { vector: new Map(mine), sinceMono: this.#clock.monoMs() }
  }

  // ---- batches: we ask ----

  #considerAll(): void {
    for (const { link } of [...this.#lines.values()]) {
      this.#attempt(link, (line, peer) => this.#consider(line, peer))
    }
  }

  /** Asks the peer for rows when it has some that we have not read, and it is its turn. */
  #consider(line: Line, peer: Peer): void {
    const monoMs = this.#clock.monoMs()
    if (!peer.isWhole || peer.generation === null || this.#isShut(peer)) return
    if (line.asked !== null && monoMs - line.asked.sinceMono < ANSWER_MS) return
    const cursor = this.#cursor(peer)
    const isCurrent = cursor?.generation === peer.generation
    const isKnown = isCovered(peer.vector, this.#feed.vector())
    if (isCurrent && isKnown && cursor.at >= peer.head) this.#complete(peer)
    else if (peer.isRead) return
    else if (isCurrent && isKnown) this.#ask(line, cursor, false)
    else if (this.#mayCatchUp()) this.#ask(line, cursor, true)
  }

  #mayCatchUp(): boolean {
    const monoMs = this.#clock.monoMs()
    const ages = [...this.#lines.values()]
      .filter(({ asked }) => asked?.catchesUp)
      .map(({ asked }) => monoMs - (asked?.sinceMono ?? 0))
      .filter((age) => age < ANSWER_MS)
    return ages.length < CATCH_UPS_MAX && ages.every((age) => age >= STALL_MS)
  }

  #ask(line: Line, cursor: Cursor | null, catchesUp: boolean): void {
    // The peer leaves out what it knows that we cover.
    if (!isSame(this.#feed.vector(), line.told.vector)) this.#around.tell(line.link)
    if (!isSame(this.#feed.vector(), line.told.vector)) return
    if (!line.link.send(MESSAGE.pull, encodePull({ feed: this.#feed.name, cursor }))) {
      this.#around.tellLater(line.link)
      return
    }
    line.asked = { sinceMono: this.#clock.monoMs(), catchesUp }
  }

  batch(link: Link, { cursor, rows, final, vector }: Batch): void {
    this.#attempt(link, (line, peer) => {
      const { asked } = line
      line.asked = null
      if (asked === null || this.#isShut(peer)) return
      const kept = this.#feed.cursor(peer.node)
      const isEmpty = rows.length === 0 && isCovered(vector ?? new Map(), this.#feed.vector())
      const isNear = kept?.generation === cursor.generation && cursor.at - kept.at < REACH_MAX
      // A commit only to move a cursor over nothing is not worth its sync.
      if (isEmpty && isNear) peer.reached = cursor
      else this.#apply({ peer: peer.node, rows, as: { kind: 'batch', cursor, vector } })
      if (!final) {
        this.#ask(line, cursor, asked.catchesUp)
        return
      }
      peer.isRead = true
      this.#complete(peer)
      this.#considerAll()
    })
  }

  #cursor(peer: Peer): Cursor | null {
    const kept = this.#feed.cursor(peer.node)
    const { reached } = peer
    const isFurther =
      kept?.generation === reached?.generation && (kept?.at ?? 0) < (reached?.at ?? 0)
    return kept !== null && isFurther ? reached : kept
  }

  /** Two nodes that both lost their rows must not believe each other that there are none. */
  #complete(peer: Peer): void {
    if (this.#caughtUp || peer.waits) return
    this.#caughtUp = true
    if (this.#around.awaits)
      for (const { link } of [...this.#lines.values()]) this.#around.tell(link)
    this.#observer.emit('sync.completed', { feed: this.#feed.name })
    for (const listener of this.#onCaughtUp) listener()
  }

  // ---- batches: we answer ----

  pull(link: Link, pull: Pull): void {
    this.#attempt(link, (line, peer) => {
      line.owed = pull
      this.#answer(line, peer)
    })
  }

  #answer(line: Line, peer: Peer): void {
    if (line.owed === null || line.owedWaits || !peer.isWhole) return
    const { cursor } = line.owed
    const { generation, head } = this.#feed
    // A cursor into another generation says nothing about this one.
    const isOurs = cursor?.generation === generation && cursor.at <= head
    const after = isOurs ? cursor.at : 0
    const many = this.#batchFor(peer, after, BATCH_BYTES)
    // A long row behind many short ones goes alone.
    const { body, final } =
      many.body.length <= MESSAGE_BYTES_MAX ? many : this.#batchFor(peer, after, 1)
    if (body.length > MESSAGE_BYTES_MAX) {
      line.owed = null
      const detail = `a row of ${body.length} bytes is more than a message takes`
      this.#observer.emit('sync.stalled', { feed: this.#feed.name, peer: peer.node, detail })
    } else if (line.link.send(MESSAGE.batch, body, !final)) line.owed = null
    else {
      line.owedWaits = true
      line.link.onceDrained(() => {
        line.owedWaits = false
        this.#attempt(line.link, () => this.#answer(line, peer))
      })
    }
  }

  #batchFor(
    peer: Peer,
    after: Place,
    bytesMax: number,
  ): { readonly body: Uint8Array; readonly final: boolean } {
    const { name, generation } = this.#feed
    const { rows, upto, final } = this.#feed.read(after, peer.vector, bytesMax)
    const fresh = newerIn(this.#feed.vector(), peer.vector)
    const vector = final ? new Map([...fresh].slice(0, WRITERS_MAX)) : null
    const cursor = { generation, at: upto }
    return { body: encodeBatch({ feed: name, cursor, rows, final, vector }), final }
  }

  // ---- pushes ----

  #push(write: OwnWrite): void {
    const links = [...this.#lines.values()].map(({ link }) => link)
    if (links.length === 0) return
    const body = this.#pushOf(write)
    for (const link of links) {
      if (body === null) this.#around.tell(link)
      else this.#sendPush(link, body)
    }
  }

  /** Null: it is for a batch. Rows are dear to read, so of many that is known before. */
  #pushOf(write: OwnWrite): Uint8Array | null {
    const { writer, after, upto } = write
    if (upto - after > PUSHED_WRITES_MAX) return null
    const names = { feed: this.#feed.name, origin: this.#around.node, writer, after, upto }
    const body = encodePush({ ...names, rows: write.rows })
    return body.length > PUSH_BYTES_MAX ? null : body
  }

  /** A link that is full forgets it: a batch will bring it. */
  #sendPush(link: Link, body: Uint8Array): void {
    if (!link.send(MESSAGE.push, body)) this.#around.tellLater(link)
  }

  /** It pushes more than we take: batches will bring the rest, at our own pace. */
  isFlooded(link: Link): boolean {
    const line = this.#lines.get(link.peer)
    return line !== undefined && this.#clock.monoMs() < line.floodedUntilMono
  }

  push(link: Link, push: Push, body: Uint8Array): void {
    this.#attempt(link, (line, peer) => {
      const { writer, after, upto, rows } = push
      if (writer === this.#feed.writer || covers(this.#feed.vector(), writer, upto)) return
      if (this.#isShut(peer) || !this.#isPaced(line, rows.length)) return
      const as = { kind: 'push', writer, after, upto } as const
      if (this.#apply({ peer: peer.node, rows, as }) === 0) return
      this.#around.acknowledge(link)
      this.#relay(line, push, body)
    })
  }

  /** Passes a push on to those who told that they cannot hear its writer, once. */
  #relay(from: Line, { origin, writer, upto }: Push, body: Uint8Array): void {
    if ((this.#relayed.get(writer) ?? 0) >= upto) return
    this.#relayed.delete(writer)
    this.#relayed.set(writer, upto)
    const [oldest] = this.#relayed.keys()
    if (this.#relayed.size > RELAYED_MAX && oldest !== undefined) this.#relayed.delete(oldest)
    for (const { link } of [...this.#lines.values()]) {
      if (link === from.link || link.peer === origin) continue
      if (this.#around.isApart(link.peer, origin) && this.#isRelay(origin, link.peer)) {
        this.#sendPush(link, body)
      }
    }
  }

  /** Whether this node is one of those who bridge the two: all choose alike, by what they heard. */
  #isRelay(origin: NodeId, target: NodeId): boolean {
    const { node, roster, isApart } = this.#around
    const far = (one: NodeId): number => (isApart(one, origin) ? 1 : 0)
    return roster
      .members()
      .map((member) => member.node)
      .filter((one) => one !== origin && one !== target && !isApart(target, one))
      .sort((a, b) => far(a) - far(b) || (a < b ? -1 : 1))
      .slice(0, RELAYS)
      .includes(node)
  }

  #isPaced(line: Line, rows: number): boolean {
    const monoMs = this.#clock.monoMs()
    if (monoMs < line.floodedUntilMono) return false
    if (monoMs - line.windowMono >= 1_000) {
      line.windowMono = monoMs
      line.windowRows = 0
    }
    line.windowRows += rows
    if (line.windowRows <= PUSHED_ROWS_MAX) return true
    line.floodedUntilMono = monoMs + FLOODED_MS
    this.#observer.emit('sync.flooded', { feed: this.#feed.name, peer: line.link.peer })
    return false
  }

  // ---- digests ----

  #compareRoots(line: Line, peer: Peer): void {
    const monoMs = this.#clock.monoMs()
    if (!this.#isComparable(peer) || peer.root === this.#rootNow()) peer.differsMono = null
    else peer.differsMono ??= monoMs
    if (peer.differsMono === null || monoMs - peer.differsMono < DIFFERS_MS) return
    if (this.#around.node < peer.node) this.#repair.begin(line.link)
  }

  /** Both claim to have the same, and we have read all that the peer has. */
  #isComparable(peer: Peer): boolean {
    if (peer.root === null || !peer.isWhole || peer.parked + this.#around.parked() > 0) return false
    if (!isSame(this.#feed.vector(), peer.vector)) return false
    const cursor = this.#cursor(peer)
    return cursor?.generation === peer.generation && cursor.at >= peer.head
  }

  digest(link: Link, step: DigestStep): void {
    this.#attempt(link, (_, peer) => {
      if (!this.#isShut(peer)) this.#repair.compare(link, step)
    })
  }

  repair(link: Link, step: RepairStep): void {
    this.#attempt(link, (line, peer) => {
      if (this.#isShut(peer) || !this.#isPaced(line, step.rows.length)) return
      this.#repair.repair(link, step, (rows) => ({
        changed: this.#apply({ peer: peer.node, rows, as: { kind: 'repair' } }),
        parked: 0,
      }))
    })
  }

  // ---- the store ----

  /** Rows that changed something. @throws RefusalError, StoreError */
  #apply(incoming: Incoming): number {
    const { changed } = this.#feed.apply(incoming)
    this.#retryMs = RETRY_MS_MIN
    if (changed > 0) {
      const fields = { feed: this.#feed.name, as: incoming.as.kind, rows: changed }
      this.#observer.emit('sync.taken', fields)
    }
    return changed
  }

  /** The edge of a link: whatever goes wrong ends here. */
  #attempt(link: Link, act: (line: Line, peer: Peer) => void): void {
    const line = this.#lines.get(link.peer)
    if (line?.link !== link) return
    const peer = this.#peer(link.peer)
    try {
      act(line, peer)
    } catch (error) {
      if (error instanceof StoreError) this.#pause(peer, error)
      else this.#bar(link, peer, error)
    }
  }

  /** A full disk: nothing is taken, so nothing is acknowledged, and the node goes on. */
  #pause(peer: Peer, error: StoreError): void {
    const retryMs = this.#retryMs
    this.#retryMs = Math.min(RETRY_MS_MAX, retryMs * 2)
    this.#pausedUntilMono = this.#clock.monoMs() + retryMs
    const detail = messageOf(error)
    this.#observer.emit('sync.stalled', { feed: this.#feed.name, peer: peer.node, detail, retryMs })
    this.#retry?.cancel()
    this.#retry = this.#clock.after(retryMs, () => this.#considerAll())
  }

  #bar(link: Link, peer: Peer, error: unknown): void {
    peer.barredUntilMono = this.#clock.monoMs() + BARRED_MS
    const why = error instanceof RefusalError ? 'rows' : 'error'
    const detail = messageOf(error)
    this.#observer.emit('sync.refused', { peer: peer.node, feed: this.#feed.name, why, detail })
    link.close(`its rows cannot be read: ${detail}`)
  }

  #isShut(peer: Peer): boolean {
    const monoMs = this.#clock.monoMs()
    return monoMs < this.#pausedUntilMono || monoMs < peer.barredUntilMono
  }

  #peer(node: NodeId): Peer {
    const known = this.#peers.get(node)
    if (known !== undefined) return known
    const peer: Peer = {
      node,
      ...SILENT,
      vector: new Map(),
      isWhole: false,
      isKnown: false,
      reached: null,
      isRead: false,
      differsMono: null,
      lags: null,
      barredUntilMono: 0,
    }
    this.#peers.set(node, peer)
    return peer
  }
}

function takeNews(peer: Peer, part: FeedBeat): void {
  if (part.anew) peer.vector = new Map()
  for (const [writer, seq] of part.vector ?? []) peer.vector.set(writer, seq)
  if (part.more) peer.isWhole = false
  else if (part.anew || part.vector !== null) peer.isWhole = true
  peer.isKnown ||= peer.isWhole
  peer.generation = part.generation ?? peer.generation
  peer.head = part.head ?? peer.head
  peer.root = part.root ?? peer.root
  peer.parked = part.parked ?? peer.parked
  peer.waits = part.waits ?? peer.waits
}

/** Everything that `inner` covers, `outer` covers. */
function isCovered(inner: Vector, outer: Vector): boolean {
  for (const [writer, seq] of inner) if (!covers(outer, writer, seq)) return false
  return true
}

function isSame(a: Vector, b: Vector | null): boolean {
  return b !== null && a.size === b.size && isCovered(a, b) && isCovered(b, a)
}

/** What `vector` has that `known` does not cover. */
function newerIn(vector: Vector, known: Vector): Vector {
  const newer = new Map<WriterId, number>()
  for (const [writer, seq] of vector) if (!covers(known, writer, seq)) newer.set(writer, seq)
  return newer
}
