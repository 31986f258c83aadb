/**
 * Keeps this node and its peers at one state. Every few seconds each tells the others in a beat
 * what changed: how far its feeds are, how it is, whom it sees, what time it has. The rows
 * themselves go by `exchange.ts`. A quiet beat is 20 bytes.
 */
import type { Clock, Timer } from '../base/clock.ts'
import { messageOf, StoreError } from '../base/errors.ts'
import type { NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { Random } from '../base/random.ts'
import type { Vector } from '../config/merge.ts'
import type { Feed } from '../store/feed.ts'
import type { SharedRows } from '../store/shared.ts'
import {
  type Link,
  type Links,
  MESSAGE,
  type Members,
  type NodeReport,
  type Roster,
  type Self,
} from './contract.ts'
import { Exchange, type Point } from './exchange.ts'
import { Skew } from './skew.ts'
import {
  type Beat,
  encodeBeat,
  readBatch,
  readBeat,
  readDigest,
  readPull,
  readPush,
  readRepair,
} from './wire.ts'

const BEAT_MS = 5_000
/** Beats are this much sooner or later, so that nodes do not fall into step. */
const JITTER_MS = 500
/** From here on beats are rarer: a node has one link for each of the others. */
const MANY_NODES = 32
/** Whom we see has changed, or whether we take copies: all are told at most this often. */
const SOON_MS = 1_000
/** Pushes of this time are acknowledged together. */
const ACKNOWLEDGE_MS = 500
const SETTLE_MS = 5_000
const COLLECT_MS = 60_000
const COLLECT_ROWS = 500
/** Free space that changed by less than one part in so many is not worth a word. */
const DISK_PARTS = 200

export type SyncOptions = {
  readonly self: Self
  readonly roster: Roster
  readonly links: Links
  readonly members: Members
  readonly feeds: { readonly state: SharedRows; readonly trace: Feed | null }
  readonly report: () => NodeReport
  /** This node joined, or lost its database: what the cluster has in common is still to come. */
  readonly awaits: boolean
}

type Deps = { readonly clock: Clock; readonly random: Random; readonly observer: Observer }

/** What a peer said of itself since our start. */
export type PeerView = {
  readonly heardMono: number
  readonly report: NodeReport | null
  /** Its clock less ours, ms; null: not measured. */
  readonly clockOffsetMs: number | null
  /** The members with whom it has no usable link. */
  readonly apart: readonly NodeId[]
}

type Peer = Omit<PeerView, 'clockOffsetMs'>

/** One link, and what was said on it of this node. */
type Line = {
  readonly link: Link
  report: NodeReport | null
  apart: string | null
  waits: boolean
  acknowledges: boolean
}

export class Sync {
  readonly #options: SyncOptions
  readonly #clock: Clock
  readonly #random: Random
  readonly #observer: Observer
  readonly #skew: Skew
  readonly #exchanges: readonly Exchange[]
  readonly #peers = new Map<NodeId, Peer>()
  readonly #lines = new Map<NodeId, Line>()
  readonly #listeners: (() => void)[] = []
  #beatTimer: Timer
  #settleTimer: Timer
  #soonTimer: Timer | null = null
  #lookTimer: Timer
  #beatenMono: number
  /** When it was told last that this node takes copies now, or none any more. */
  #turnedMono = Number.NEGATIVE_INFINITY
  #collectMono: number
  #closed = false

  constructor(options: SyncOptions, deps: Deps) {
    this.#options = options
    this.#clock = deps.clock
    this.#random = deps.random
    this.#observer = deps.observer
    this.#skew = new Skew(deps.clock, deps.observer)
    const { self, links, roster, feeds, awaits } = options
    const exchange = (feed: Feed, parked: () => number): Exchange =>
      new Exchange(
        feed,
        {
          node: self.node,
          roster,
          awaits: awaits && feed.name === 'state',
          parked,
          isApart: (node, other) => this.#isApart(node, other),
          tell: (link) => this.#beat(link),
          tellLater: (link) => this.#beatLater(link),
          acknowledge: (link) => this.#acknowledge(link),
        },
        deps,
      )
    this.#exchanges = [
      exchange(feeds.state, () => feeds.state.parked),
      ...(feeds.trace === null ? [] : [exchange(feeds.trace, () => 0)]),
    ]
    this.#beatenMono = deps.clock.monoMs()
    this.#collectMono = deps.clock.monoMs() + COLLECT_MS
    this.#listen()
    links.onOpen((link) => this.#opened(link))
    links.onClose((link) => this.#closedLink(link))
    roster.onChange(() => {
      this.#forget()
      this.look()
    })
    this.onCaughtUp('state', () => this.look())
    options.members.onChange(() => this.#beatSoon())
    for (const link of links.all()) this.#opened(link)
    this.#beatTimer = deps.clock.after(this.#pauseMs(), () => this.#beatAll())
    this.#lookTimer = deps.clock.after(SOON_MS, () => this.#look())
    this.#settleTimer = deps.clock.after(SETTLE_MS, () => this.#settle())
  }

  close(): void {
    this.#closed = true
    this.#beatTimer.cancel()
    this.#settleTimer.cancel()
    this.#soonTimer?.cancel()
    this.#lookTimer.cancel()
    for (const exchange of this.#exchanges) exchange.close()
    this.#lines.clear()
  }

  // ---- what the house asks ----

  /** Everything that some peer had is here, since the start; true without peers. */
  caughtUp(feed: Feed['name']): boolean {
    return this.#exchange(feed)?.caughtUp ?? true
  }

  /** Called once, when a final batch of the feed was applied. */
  onCaughtUp(feed: Feed['name'], listener: () => void): void {
    this.#exchange(feed)?.onCaughtUp(listener)
  }

  /** It says that it waits itself for what the cluster has in common. */
  isWaiting(node: NodeId): boolean {
    return this.#exchange('state')?.isWaiting(node) ?? false
  }

  /** Null: not heard since our start. */
  peer(node: NodeId): PeerView | null {
    const peer = this.#peers.get(node)
    return peer === undefined ? null : { ...peer, clockOffsetMs: this.#skew.offsetMs(node) }
  }

  /** Writes known here that the peer has not durably taken, and the age of the oldest in ms. */
  lagOf(node: NodeId): { readonly rows: number; readonly ms: number } {
    const lags = this.#exchanges.map((exchange) => exchange.lagOf(node))
    return {
      rows: lags.reduce((sum, { rows }) => sum + rows, 0),
      ms: Math.max(...lags.map(({ ms }) => ms)),
    }
  }

  /** The last write of this process to the state. */
  point(): Point {
    return this.#exchange('state')?.point() ?? { writer: '', seq: 0 }
  }

  /** What of the state is durable here. */
  vector(): Vector {
    return this.#options.feeds.state.vector()
  }

  /** The node has durably taken that write, and all that it had then is here. */
  hasTaken(node: NodeId, point: Point): boolean {
    return this.#exchange('state')?.hasTaken(node, point) ?? false
  }

  /** All of the state that the node was heard to have is here. */
  hasReadAll(node: NodeId): boolean {
    return this.#exchange('state')?.hasReadAll(node) ?? false
  }

  /** What every member has durably taken of the state; null while one was not heard. */
  durable(): Vector | null {
    return this.#exchange('state')?.durable() ?? null
  }

  /** Whole sentences when this clock is not believed, then settings are read-only here; or null. */
  clockTrouble(): string | null {
    return this.#skew.trouble()
  }

  /** Rows that a digest had to repair here since the start. */
  get repairs(): number {
    return this.#exchanges.reduce((sum, { repaired }) => sum + repaired, 0)
  }

  /**
   * Peers choose by `takesCopies` where their copies go: when it may have changed they hear of it
   * at once, or a second after they did last. What nobody calls this for is found every second.
   */
  look(): void {
    const isOver = this.#clock.monoMs() >= this.#turnedMono + SOON_MS
    if (isOver && !this.#closed) this.#look()
  }

  /** After every beat of a peer, and when a link came or went. */
  onChange(listener: () => void): void {
    this.#listeners.push(listener)
  }

  // ---- links ----

  #listen(): void {
    const { links } = this.#options
    links.onMessage(MESSAGE.beat, (link, body) => {
      const beat = readBeat(body)
      if (beat === null) this.#refuse(link, 'beat')
      else this.#heard(link, beat)
    })
    this.#onMessage(MESSAGE.pull, readPull, (exchange, link, pull) => exchange.pull(link, pull))
    this.#onMessage(MESSAGE.batch, readBatch, (exchange, link, batch) =>
      exchange.batch(link, batch),
    )
    this.#onMessage(MESSAGE.push, readPush, (exchange, link, push, body) =>
      exchange.push(link, push, body),
    )
    this.#onMessage(MESSAGE.digest, readDigest, (exchange, link, step) =>
      exchange.digest(link, step),
    )
    this.#onMessage(MESSAGE.repair, readRepair, (exchange, link, step) =>
      exchange.repair(link, step),
    )
  }

  /** A message about one feed; one that we do not have is passed over. */
  #onMessage<Message extends { readonly feed: string }>(
    type: number,
    read: (body: Uint8Array) => Message | null,
    act: (exchange: Exchange, link: Link, message: Message, body: Uint8Array) => void,
  ): void {
    this.#options.links.onMessage(type, (link, body) => {
      if (this.#closed) return
      const message = read(body)
      if (message === null) {
        this.#refuse(link, 'body')
        return
      }
      const exchange = this.#exchange(message.feed)
      if (exchange !== undefined) act(exchange, link, message, body)
    })
  }

  #refuse(link: Link, why: 'beat' | 'body'): void {
    this.#observer.emit('sync.refused', { peer: link.peer, why })
    link.close('it sent a message that cannot be read')
  }

  #opened(link: Link): void {
    if (this.#closed) return
    this.#lines.set(link.peer, {
      link,
      report: null,
      apart: null,
      waits: false,
      acknowledges: false,
    })
    for (const exchange of this.#exchanges) exchange.opened(link)
    this.#beat(link)
    this.#beatSoon()
    this.#changed()
  }

  #closedLink(link: Link): void {
    if (this.#lines.get(link.peer)?.link === link) this.#lines.delete(link.peer)
    for (const exchange of this.#exchanges) exchange.closed(link)
    this.#beatSoon()
    this.#changed()
  }

  /** Who left the cluster has no say any more. */
  #forget(): void {
    const members = new Set(this.#options.roster.members().map(({ node }) => node))
    for (const node of [...this.#peers.keys()]) {
      if (members.has(node)) continue
      this.#peers.delete(node)
      this.#skew.forget(node)
      for (const exchange of this.#exchanges) exchange.forget(node)
    }
  }

  // ---- beats ----

  #pauseMs(): number {
    const nodes = this.#options.roster.members().length
    const rarer = nodes <= MANY_NODES ? 1 : 1 + Math.ceil(Math.log2(nodes / MANY_NODES))
    return (BEAT_MS - JITTER_MS + this.#random.below(2 * JITTER_MS + 1)) * rarer
  }

  #beatAll(): void {
    this.#beatTimer.cancel()
    this.#beatTimer = this.#clock.after(this.#pauseMs(), () => this.#beatAll())
    this.#beatenMono = this.#clock.monoMs()
    const apart = this.#apart()
    for (const { link } of [...this.#lines.values()]) this.#beat(link, apart)
    this.clockTrouble()
  }

  /** All are told soon: now, or a second after the last time. */
  #beatSoon(): void {
    if (this.#soonTimer !== null || this.#closed) return
    const waitMs = Math.max(0, this.#beatenMono + SOON_MS - this.#clock.monoMs())
    this.#soonTimer = this.#clock.after(waitMs, () => {
      this.#soonTimer = null
      this.#beatAll()
    })
  }

  #look(): void {
    this.#lookTimer.cancel()
    this.#lookTimer = this.#clock.after(SOON_MS, () => this.#look())
    // Nobody is linked while the node is still being built, and cannot report.
    if (this.#lines.size === 0) return
    const { takesCopies } = this.#options.report()
    const untold = [...this.#lines.values()].filter(
      ({ report }) => report !== null && report.takesCopies !== takesCopies,
    )
    if (untold.length === 0) return
    this.#turnedMono = this.#clock.monoMs()
    for (const { link } of untold) this.#beat(link)
  }

  /** What a peer sees of its lag is no older than this, also between the beats. */
  #acknowledge(link: Link): void {
    const line = this.#lines.get(link.peer)
    if (line?.link !== link || line.acknowledges) return
    line.acknowledges = true
    this.#clock.after(ACKNOWLEDGE_MS, () => {
      line.acknowledges = false
      const flooded = this.#exchanges.some((exchange) => exchange.isFlooded(link))
      if (!this.#closed && !flooded) this.#beat(link)
    })
  }

  #beatLater(link: Link): void {
    const line = this.#lines.get(link.peer)
    if (line?.link !== link || line.waits) return
    line.waits = true
    link.onceDrained(() => {
      line.waits = false
      this.#beat(link)
    })
  }

  /** Tells the peer what is new for it. A long vector takes several beats. */
  #beat(link: Link, apart: readonly NodeId[] = this.#apart()): void {
    const line = this.#lines.get(link.peer)
    if (line?.link !== link) return
    const report = newsOf(this.#options.report(), line.report)
    const named = apart.join(' ')
    for (;;) {
      const said = this.#exchanges.flatMap((exchange) => exchange.say(link) ?? [])
      const body = encodeBeat({
        wallMs: Math.max(0, Math.round(this.#clock.wallMs())),
        report: report === line.report ? null : report,
        apart: named === line.apart ? null : apart,
        feeds: said.map(({ part }) => part),
      })
      if (!link.send(MESSAGE.beat, body)) {
        this.#beatLater(link)
        return
      }
      line.report = report
      line.apart = named
      for (const { note } of said) note()
      if (!said.some(({ part }) => part.more)) return
    }
  }

  /** The members with whom this node has no usable link. */
  #apart(): readonly NodeId[] {
    const { roster, links, members } = this.#options
    return roster
      .peers()
      .map(({ node }) => node)
      .filter((node) => links.get(node) === null || !members.isUsable(node))
  }

  #isApart(node: NodeId, other: NodeId): boolean {
    const apart = node === this.#options.self.node ? this.#apart() : this.#peers.get(node)?.apart
    return apart?.includes(other) ?? false
  }

  #heard(link: Link, beat: Beat): void {
    if (this.#closed || this.#lines.get(link.peer)?.link !== link) return
    const before = this.#peers.get(link.peer)
    this.#peers.set(link.peer, {
      heardMono: this.#clock.monoMs(),
      report:
        beat.report === null
          ? (before?.report ?? null)
          : { ...(before?.report ?? NOTHING), ...beat.report },
      apart: beat.apart ?? before?.apart ?? [],
    })
    this.#skew.heard(link.peer, beat.wallMs, (link.roundTripMs ?? 0) / 2)
    for (const exchange of this.#exchanges) {
      exchange.heard(link, beat.feeds.find(({ feed }) => feed === exchange.name) ?? null)
    }
    this.#changed()
  }

  // ---- the house in order ----

  #settle(): void {
    this.#settleTimer = this.#clock.after(SETTLE_MS, () => this.#settle())
    const { state } = this.#options.feeds
    try {
      state.settle()
      if (this.#clock.monoMs() >= this.#collectMono) {
        const gone = state.collect(this.durable(), COLLECT_ROWS)
        this.#collectMono = this.#clock.monoMs() + (gone < COLLECT_ROWS ? COLLECT_MS : 0)
      }
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      this.#observer.emit('sync.stalled', { feed: 'state', detail: messageOf(error) })
    }
    for (const exchange of this.#exchanges) exchange.tick()
  }

  #exchange(name: string): Exchange | undefined {
    return this.#exchanges.find((exchange) => exchange.name === name)
  }

  #changed(): void {
    for (const listener of this.#listeners) listener()
  }
}

const NOTHING: NodeReport = {
  ready: false,
  queue: 0,
  held: 0,
  diskFreeBytes: 0,
  diskTotalBytes: 0,
  takesCopies: false,
  copies: 0,
  alone: 0,
  inDoubt: 0,
  troubles: [],
}

/** What the peer is told next: `told` itself when nothing changed that is worth a word. */
function newsOf(report: NodeReport, told: NodeReport | null): NodeReport {
  if (told === null) return report
  const moved = Math.abs(report.diskFreeBytes - told.diskFreeBytes)
  const isSame =
    report.ready === told.ready &&
    report.queue === told.queue &&
    report.held === told.held &&
    report.takesCopies === told.takesCopies &&
    report.copies === told.copies &&
    report.alone === told.alone &&
    report.inDoubt === told.inDoubt &&
    report.troubles.join(' ') === told.troubles.join(' ') &&
    report.diskTotalBytes === told.diskTotalBytes &&
    moved < report.diskTotalBytes / DISK_PARTS
  return isSame ? told : report
}
