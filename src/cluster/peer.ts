/** What a member knows of another one, and the questions that it asked it. Plain state. */
import type { Timer } from '../base/clock.ts'
import type { NodeId } from '../base/ids.ts'
import type { Life, Member, PeerAddress } from './contract.ts'
import type { Letter, ProbeId, Way } from './letter.ts'

/** Waiting for a direct answer: by the measured round trip, within these. */
const DIRECT_MS = { least: 200, first: 400, most: 600 } as const
/** From one question to a dead node to the next, in a cluster of at most so many members. */
const DEAD_MS = { least: 3_000, most: 4_500, members: 32 } as const

/** How a node reaches another one. */
export type LinkSight = { readonly tcp: Way; readonly udp: Way }

/** What it said of hearing us. `saidMono`: when it last said by link that it hears that, or null. */
export type Told = Letter['heard'] & { readonly saidMono: number | null }

export type Peer = {
  readonly node: NodeId
  member: Member
  life: Life
  sinceMono: number
  incarnation: number
  heardMono: number | null
  /** By a datagram of its own. */
  heardUdpMono: number | null
  /** When the last question was sent that it answered itself, by either way. */
  ackedBoot: number | null
  /** Null: nothing yet. */
  told: Told | null
  /** What we said of hearing it, and it has answered; null: nothing yet. */
  acked: Letter['heard'] | null
  /** From where its last datagram came; null: ask the addresses of the roster in turn. */
  source: PeerAddress | null
  turn: number
  roundTripMs: number | null
  variationMs: number
  probe: Probe | null
  askedMono: number
  /** The first question that nobody answered; null: there is no doubt. */
  doubtMono: number | null
  /** For the next verdict: from doubt to suspect, from suspect to dead. */
  verdict: Timer | null
  retry: Timer | null
  /** What it says of its own ways, by node. */
  readonly sights: Map<NodeId, LinkSight>
  /** When it was last told of ours; null: never. And with which member to go on. */
  linksToldMono: number | null
  linksNext: number
  /** When it was last told that somebody accuses it; null: never. */
  warnedMono: number | null
  rival: Rival | null
  isMuteSaid: boolean
}

/** Another run of the same node. */
export type Rival = { readonly askedMono: number; readonly address: string; isProven: boolean }

/** One question to one peer. */
export type Probe = {
  readonly id: ProbeId
  readonly peer: Peer
  readonly sentMono: number
  readonly sentBoot: number
  readonly heard: Letter['heard']
  timer: Timer | null
  /** Others that were asked and have not said `nack`. */
  readonly silent: Set<NodeId>
  asked: number
}

/** Nobody has heard it yet. */
export function newPeer(member: Member, nowMono: number): Peer {
  return {
    node: member.node,
    member,
    life: 'suspect',
    sinceMono: nowMono,
    incarnation: 0,
    heardMono: null,
    heardUdpMono: null,
    ackedBoot: null,
    told: null,
    acked: null,
    source: null,
    turn: 0,
    roundTripMs: null,
    variationMs: 0,
    probe: null,
    askedMono: nowMono,
    doubtMono: null,
    verdict: null,
    retry: null,
    sights: new Map(),
    linksToldMono: null,
    linksNext: 0,
    warnedMono: null,
    rival: null,
    isMuteSaid: false,
  }
}

/** Null: the roster has no address of it and it never spoke. */
export function addressOf({ source, member, turn }: Peer): PeerAddress | null {
  return source ?? member.peer[turn % Math.max(1, member.peer.length)] ?? null
}

/**
 * How long after the last question a dead node is asked again: soon enough that a healed cut is
 * found within 5 s by both sides. `chance` is 0..1. In a larger cluster the questions of each node
 * are as many as in one of 32.
 */
export function deadMs(members: number, chance: number): number {
  const { least, most } = DEAD_MS
  return (least + chance * (most - least)) * Math.max(1, members / DEAD_MS.members)
}

/** How long to wait for its answer: Jacobson's estimate (RFC 6298 section 2), within bounds. */
export function directMs({ roundTripMs, variationMs }: Peer): number {
  if (roundTripMs === null) return DIRECT_MS.first
  return Math.min(DIRECT_MS.most, Math.max(DIRECT_MS.least, roundTripMs + 4 * variationMs))
}

export function measure(peer: Peer, tookMs: number): void {
  if (peer.roundTripMs === null) {
    peer.roundTripMs = tookMs
    peer.variationMs = tookMs / 2
    return
  }
  peer.variationMs = 0.75 * peer.variationMs + 0.25 * Math.abs(peer.roundTripMs - tookMs)
  peer.roundTripMs = 0.875 * peer.roundTripMs + 0.125 * tookMs
}
