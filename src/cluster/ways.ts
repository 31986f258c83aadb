/**
 * By which ways a node reaches its peers. A way works when both ends lately heard each other by
 * it: one that goes in one direction only is down for both.
 */
import type { Clock } from '../base/clock.ts'
import type { NodeId } from '../base/ids.ts'
import type { Links } from './contract.ts'
import type { Item, Letter, Plane, ProbeId, Way } from './letter.ts'
import type { LinkSight, Peer, Probe } from './peer.ts'

/** Something came by it in this time. */
const HEARD_MS = 15_000
/** Datagrams: or in the time that a large cluster takes for so many rounds. */
const HEARD_ROUNDS = 2.5
/** A link without traffic is asked. */
const QUIET_LINK_MS = 10_000

/** Each peer hears of the ways of this node so often, of so many at a time. */
const LINKS_MS = 5_000
const LINKS_AT_ONCE = 12

const UNKNOWN: Way = { works: null, ms: null }
const DOWN: Way = { works: false, ms: null }

export class Ways {
  readonly #links: Links
  readonly #clock: Pick<Clock, 'monoMs'>
  readonly #probeMs: number
  readonly #peers: ReadonlyMap<NodeId, Peer>
  /** All members by id, and what stands for exactly these. */
  #everybody: readonly NodeId[] = []
  #rosterHash = 0

  /** `probeMs`: one peer is asked so often. `peers` is read as it is at each call. */
  constructor(
    links: Links,
    peers: ReadonlyMap<NodeId, Peer>,
    probeMs: number,
    clock: Pick<Clock, 'monoMs'>,
  ) {
    this.#links = links
    this.#peers = peers
    this.#probeMs = probeMs
    this.#clock = clock
  }

  /** The members are these, this node among them. */
  follow(members: readonly NodeId[]): void {
    this.#everybody = members.toSorted()
    this.#rosterHash = hashOf(this.#everybody)
  }

  /** Whether this node lately heard the peer: by datagram, by link. */
  heardOf(peer: Peer): Letter['heard'] {
    const nowMono = this.#clock.monoMs()
    const link = this.#links.get(peer.node)
    return {
      udp: peer.heardUdpMono !== null && nowMono - peer.heardUdpMono < this.#udpWindowMs(),
      tcp: link !== null && nowMono - link.heardMono < HEARD_MS,
    }
  }

  sightOf(peer: Peer): LinkSight {
    const link = this.#links.get(peer.node)
    const { told } = peer
    if (told === null) return { tcp: link === null ? DOWN : UNKNOWN, udp: UNKNOWN }
    const { udp, tcp } = this.heardOf(peer)
    return {
      tcp: link !== null && tcp && told.tcp ? { works: true, ms: link.roundTripMs } : DOWN,
      udp: udp && told.udp ? { works: true, ms: peer.roundTripMs } : DOWN,
    }
  }

  /**
   * What the peer says of hearing this node. The link may overtake a datagram: when the peer has
   * said by link that it hears that, a datagram which denies it counts only as an answer to a
   * question of since then. False: it is to be asked one.
   */
  takeHeard(
    peer: Peer,
    { heard, items }: Letter,
    plane: Plane,
    probes: ReadonlyMap<ProbeId, Probe>,
  ): boolean {
    const { udp } = heard
    const saidMono = plane === 'udp' ? (peer.told?.saidMono ?? null) : this.#clock.monoMs()
    const isNew =
      plane === 'tcp' ||
      heard.tcp ||
      saidMono === null ||
      items.some(
        (item) => item.kind === 'ack' && (probes.get(item.probe)?.sentMono ?? 0) > saidMono,
      )
    const tcp = heard.tcp || !isNew
    peer.told = { udp, tcp, saidMono: tcp ? saidMono : null }
    return isNew
  }

  /** As far as is known: nothing speaks against datagrams yet. */
  mayPassUdp(peer: Peer): boolean {
    const sinceMono = peer.heardUdpMono ?? peer.sinceMono
    const isRecent = this.#clock.monoMs() - sinceMono < this.#udpWindowMs()
    return isRecent && peer.told?.udp !== false
  }

  /** The link goes and datagrams do not come, for long enough to be sure. */
  isMute(peer: Peer): boolean {
    const { udp, tcp } = this.heardOf(peer)
    const isSure = this.#clock.monoMs() - peer.sinceMono >= this.#udpWindowMs()
    return peer.life === 'alive' && isSure && tcp && !udp
  }

  isLinkQuiet(peer: Peer): boolean {
    const link = this.#links.get(peer.node)
    return link !== null && this.#clock.monoMs() - link.heardMono > QUIET_LINK_MS
  }

  // ---- what they tell each other of it ----

  /** For the next letter to the peer; empty when it heard of it a moment ago. */
  itemsFor(peer: Peer): Item[] {
    const nowMono = this.#clock.monoMs()
    if (peer.linksToldMono !== null && nowMono - peer.linksToldMono < LINKS_MS) return []
    peer.linksToldMono = nowMono
    const first = peer.linksNext < this.#everybody.length ? peer.linksNext : 0
    const part = this.#everybody.slice(first, first + LINKS_AT_ONCE)
    peer.linksNext = first + part.length
    const links = part.map((node) => {
      const other = this.#peers.get(node)
      return other === undefined ? { tcp: UNKNOWN, udp: UNKNOWN } : this.sightOf(other)
    })
    return [{ kind: 'links', rosterHash: this.#rosterHash, first, links }]
  }

  take(peer: Peer, { rosterHash, first, links }: Extract<Item, { kind: 'links' }>): void {
    if (rosterHash !== this.#rosterHash) return
    for (const [index, sight] of links.entries()) {
      const node = this.#everybody[first + index]
      if (node !== undefined && node !== peer.node) peer.sights.set(node, sight)
    }
  }

  /** In a large cluster each peer's turn comes seldom. */
  #udpWindowMs(): number {
    return Math.max(HEARD_MS, HEARD_ROUNDS * this.#peers.size * this.#probeMs)
  }
}

/** FNV-1a over the ids, 32 bits. */
function hashOf(nodes: readonly NodeId[]): number {
  let hash = 0x811c_9dc5
  for (const octet of Buffer.from(nodes.join(' '))) {
    hash = Math.imul(hash ^ octet, 0x0100_0193) >>> 0
  }
  return hash
}
