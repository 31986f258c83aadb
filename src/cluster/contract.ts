/**
 * The types that the parts of the cluster share, and what the rest of the house sees of it.
 * The cluster knows nothing of mail: feeds carry rows, calls carry JSON and streams of bytes.
 */
import type { Clock } from '../base/clock.ts'
import type { NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { Random } from '../base/random.ts'
import type { WriterId } from '../config/merge.ts'

// ---- the network, as a seam ----

/** One literal address; names are resolved before. */
export type PeerAddress = { readonly host: string; readonly port: number }

/** A stream of bytes. Handlers are never called before `open` returned, nor after `closed`. */
export interface Stream {
  readonly remote: PeerAddress
  /** False: the network is full, wait for `drained`. Bytes are taken in any case; copied if kept. */
  write(bytes: Uint8Array): boolean
  /** Closes after what was written is out. */
  end(): void
  /** Closes now. Twice is harmless. */
  terminate(): void
}

export type StreamHandlers = {
  /** Bytes are lent for the call: who wants them afterwards copies them. */
  received(bytes: Uint8Array): void
  drained(): void
  /** Once, for whatever reason; nothing follows. */
  closed(why: string): void
}

export interface Network {
  /** @throws RefusalError when the address cannot be bound */
  listen(
    address: PeerAddress,
    open: (stream: Stream) => StreamHandlers,
  ): Promise<{ readonly port: number; close(): void }>
  /**
   * Rejects when nobody answers within `timeoutMs`, and at once when the machine says that nobody
   * listens there (RST): with an `UnreachableError` that says which of the two it was.
   */
  dial(
    address: PeerAddress,
    open: (stream: Stream) => StreamHandlers,
    timeoutMs: number,
  ): Promise<void>
  /** Datagrams of at most 1,200 bytes. Errors of the network are swallowed: loss is normal. */
  datagrams(
    address: PeerAddress,
    received: (bytes: Uint8Array, from: PeerAddress) => void,
  ): Promise<{
    readonly port: number
    send(bytes: Uint8Array, to: PeerAddress): void
    close(): void
  }>
}

/** What every part is built with. A simulation replaces all of it. */
export type ClusterDeps = {
  readonly clock: Clock
  readonly random: Random
  readonly network: Network
  readonly observer: Observer
}

// ---- who is who ----

/** DIR/node.key: two key pairs, made at init, 0600. Raw 32-byte keys. */
export type NodeKeys = {
  /** X25519: who may speak. */
  readonly exchange: { readonly secret: Uint8Array; readonly public: Uint8Array }
  /** Ed25519: who admitted whom. */
  readonly sign: { readonly secret: Uint8Array; readonly public: Uint8Array }
}

/** Who this process is: the node, and this run of it. */
export type Self = {
  readonly node: NodeId
  readonly keys: NodeKeys
  /** Random at each start; equal to the writer of the state feed. */
  readonly instance: WriterId
  /** Counts the starts of this data directory. */
  readonly epoch: number
  readonly version: string
}

/** `left` and `evicted` are for good; a node comes back only with a new id and a new token. */
export type Standing = 'member' | 'left' | 'evicted'

export type Member = {
  readonly node: NodeId
  readonly name: string
  readonly standing: Standing
  /** Raw public keys, 32 bytes. */
  readonly exchange: Uint8Array
  readonly sign: Uint8Array
  /** Where it listens for peers, UDP and TCP at the same port; tried in order. */
  readonly peer: readonly PeerAddress[]
  readonly smtp: string
  readonly web: string
  readonly version: string
  /** What this version can read; a new write format waits until all members name it. */
  readonly features: readonly string[]
  /** The spool of its last start, and the count of its starts then; absent: a build of before. */
  readonly spool?: { readonly id: string; readonly epoch: number }
  /** `accepting`: it wants mail. `leaving`: as `draining`, and copies are to be made elsewhere. */
  readonly drain: 'accepting' | 'draining' | 'drained' | 'leaving'
  readonly admittedBy: NodeId | null
  readonly admittedMs: number
}

/** The members as the replicated rows have them, this node included. Kept in step by itself. */
export interface Roster {
  /** Null: this node never had a cluster's id (cannot happen after init). 16 hex digits. */
  readonly clusterId: string
  readonly self: Self
  /** Everybody not `left` or `evicted`, this node first, then by id. */
  members(): readonly Member[]
  /** The others. */
  peers(): readonly Member[]
  /** Whatever the standing; null: never heard of. */
  get(node: NodeId): Member | null
  /** By raw public exchange key, whatever the standing. */
  byExchange(key: Uint8Array): Member | null
  onChange(listener: () => void): void
}

// ---- links ----

/** What a link carries. Numbers are the wire's and never change meaning; unknown ones are ignored. */
export const MESSAGE = {
  hello: 1,
  beat: 2,
  /** Member states over TCP, where UDP is blocked; same body as a datagram. */
  gossip: 3,
  pull: 4,
  batch: 5,
  push: 6,
  digest: 7,
  repair: 8,
  call: 9,
  answer: 10,
  /** A piece of a streamed answer. */
  piece: 11,
  /** Credit and cancel for pieces. */
  flow: 12,
  probe: 13,
  probed: 14,
  /** How somebody was let in whom the called side does not know; the only message before a welcome. */
  admission: 15,
  /** Copies of mail and what is said of them; the body is copy-wire's. */
  mail: 16,
  /** Counters of the last seconds, for limits that hold for all nodes together. */
  tally: 17,
} as const

/** Body of a message after joining its frames: at most this. */
export const MESSAGE_BYTES_MAX = 2 * 1024 * 1024

/** One authenticated, encrypted, ordered connection with a member. */
export interface Link {
  readonly peer: NodeId
  /** The run of the peer that is at the other end. */
  readonly instance: WriterId
  readonly remote: PeerAddress
  /** Who dialled. */
  readonly outgoing: boolean
  /** Smoothed round trip in ms; null: not measured yet. */
  readonly roundTripMs: number | null
  /** Monotonic ms of the last message of any type; at first of the end of the handshake. */
  readonly heardMono: number
  /** Boot ms at which the last question was sent that was answered; null: none was yet. */
  readonly ackedBoot: number | null
  /** Bytes that wait to be sent. */
  readonly backlogBytes: number
  /**
   * The body is read before this returns. `bulk` waits behind what is not. False: the backlog is
   * full or the link closed; not taken.
   */
  send(type: number, body: Uint8Array, bulk?: boolean): boolean
  /** Called once when `backlogBytes` falls below half of its bound. */
  onceDrained(run: () => void): void
  close(why: string): void
}

/** All links of this node: one per member, dialled again for ever while it is a member. */
export interface Links {
  get(node: NodeId): Link | null
  all(): readonly Link[]
  onOpen(listener: (link: Link) => void): void
  onClose(listener: (link: Link, why: string) => void): void
  /** One listener a type. The body is the listener's own. */
  onMessage(type: number, listener: (link: Link, body: Uint8Array) => void): void
  /** Why there is no link with a member, in words; null when there is one. */
  trouble(node: NodeId): string | null
}

// ---- who lives ----

export type Life = 'alive' | 'suspect' | 'dead'

export type Liveness = {
  readonly node: NodeId
  readonly life: Life
  /** Monotonic ms of the last change of `life` and of the last sign of life; null: never. */
  readonly sinceMono: number
  readonly heardMono: number | null
  /**
   * Boot ms at which the last question was sent, by whatever way, that it answered itself: until
   * then it heard us for sure. Null: never.
   */
  readonly ackedBoot: number | null
  /** Whether datagrams and the link go both ways; `null`: not known yet. */
  readonly udp: boolean | null
  readonly tcp: boolean | null
  readonly udpRoundTripMs: number | null
}

export interface Members {
  get(node: NodeId): Liveness | null
  all(): readonly Liveness[]
  /** Both directions confirmed, over TCP. */
  isUsable(node: NodeId): boolean
  /** After a change of `life` or `isUsable`, and when it started anew, perhaps unnoticed. */
  onChange(listener: (liveness: Liveness, before: Life) => void): void
}

// ---- questions to one node ----

/** JSON both ways; `stream` for an answer with bytes behind it. */
export type CallAnswer =
  | { readonly kind: 'json'; readonly value: unknown }
  | {
      readonly kind: 'stream'
      readonly value: unknown
      readonly bytes: AsyncIterable<Uint8Array>
    }

export interface Calls {
  /** What this node answers; a RefusalError thrown travels as it is. One per topic. */
  answer(topic: string, act: (value: unknown, from: NodeId) => Promise<CallAnswer>): void
  /** @throws RefusalError of the other side; `unavailable` when it does not answer in time */
  ask(node: NodeId, topic: string, value: unknown, timeoutMs?: number): Promise<unknown>
  /** As `ask`; the pieces come as they are taken. */
  fetch(
    node: NodeId,
    topic: string,
    value: unknown,
    timeoutMs?: number,
  ): Promise<{ readonly value: unknown; readonly bytes: AsyncIterable<Uint8Array> }>
}

// ---- what the pages show ----

export type NodeState = 'alive' | 'suspect' | 'dead' | 'draining' | 'drained' | 'left' | 'evicted'

/** Of one node: more is not told. */
export const TROUBLES_MAX = 16

/** What a node says of itself to its peers every few seconds, and shows of them. */
export type NodeReport = {
  readonly ready: boolean
  readonly queue: number
  readonly held: number
  readonly diskFreeBytes: number
  readonly diskTotalBytes: number
  /** It takes copies now: it has caught up, is behind no barrier, does not drain, has disk. */
  readonly takesCopies: boolean
  /** Messages that it keeps for others. */
  readonly copies: number
  /** Messages of its own, queued or held, of which nobody else is known to have a copy. */
  readonly alone: number
  /** Messages of its own that may have been delivered although nothing says so. */
  readonly inDoubt: number
  /** What is wrong on it that only it can see: words of admin/alerts, at most TROUBLES_MAX. */
  readonly troubles: readonly string[]
}

export type NodeView = {
  readonly id: NodeId
  readonly name: string
  readonly here: boolean
  readonly state: NodeState
  /** Wall ms since when it is so; null: not known. */
  readonly sinceMs: number | null
  /** Rows of mine that it has not acknowledged, and the age of the oldest in ms. */
  readonly lagRows: number
  readonly lagMs: number
  readonly report: NodeReport | null
  /** Its clock less ours, ms; null: not measured. */
  readonly clockOffsetMs: number | null
  readonly version: string
  readonly peer: readonly string[]
  readonly smtp: string
  readonly web: string
  readonly admittedMs: number
}

export type LinkView = {
  readonly from: NodeId
  readonly to: NodeId
  /** As `from` sees it; null: not known (from is not in reach). */
  readonly tcp: boolean | null
  readonly udp: boolean | null
  readonly tcpMs: number | null
  readonly udpMs: number | null
  /** Why not, in words. */
  readonly trouble: string | null
}

export type ClusterView = {
  readonly clusterId: string
  readonly nodes: readonly NodeView[]
  readonly links: readonly LinkView[]
  /** Rows that a digest had to repair since the start: 0, or a fault of ours. */
  readonly repairs: number
  /** Rows that wait for their time (a clock that runs ahead). */
  readonly parked: number
  readonly digest: string
  /** Settings are read-only because this clock is wrong; null: they are not. */
  readonly clockTrouble: string | null
  readonly events: readonly ClusterEvent[]
}

export type ClusterEvent = {
  readonly atMs: number
  readonly node: NodeId
  readonly name: string
  readonly what: string
  readonly detail: string
}

export type TokenView = {
  readonly id: string
  readonly state: 'open' | 'used' | 'expired' | 'revoked'
  readonly issuer: NodeId
  readonly issuedMs: number
  readonly by: string
  readonly expiresMs: number
  readonly usedBy: string | null
}
