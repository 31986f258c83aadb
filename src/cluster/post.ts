/**
 * What a node says to its peers: by datagram or by the link, and with every letter some of the
 * rumours that go round. Loss is normal: nothing is sent again.
 */
import type { Timer } from '../base/clock.ts'
import type { NodeId } from '../base/ids.ts'
import { type Random, shuffled } from '../base/random.ts'
import { type Links, MESSAGE, type PeerAddress, type Self } from './contract.ts'
import { encodeLetter, type Item, type Letter, type Plane, type Word } from './letter.ts'
import type { Opened, Packets } from './packet.ts'
import { addressOf, type Peer } from './peer.ts'
import { Rumours } from './rumours.ts'
import type { StallClock } from './stalls.ts'
import type { Ways } from './ways.ts'

const GOSSIP_MS = 250
const GOSSIP_TO = 3
const WORDS_MAX = 50

export type PostDeps = {
  readonly self: Self
  readonly links: Links
  readonly ways: Ways
  readonly packets: Packets
  /** Read as they are at each call. */
  readonly peers: ReadonlyMap<NodeId, Peer>
  readonly clock: StallClock
  readonly random: Random
  /** Sends a datagram. */
  readonly transmit: (packet: Uint8Array, to: PeerAddress) => void
}

export class Post {
  readonly #deps: PostDeps
  readonly #rumours = new Rumours()
  #incarnation: number
  /** Null: there is nothing to tell. */
  #gossiping: Timer | null = null

  constructor(deps: PostDeps) {
    this.#deps = deps
    this.#incarnation = deps.self.epoch * 0x1_0000
  }

  close(): void {
    this.#gossiping?.cancel()
  }

  /** Rumours about it are over. */
  forget(node: NodeId): void {
    this.#rumours.forget(node)
  }

  /** By the plane that works, when none is named. */
  send(peer: Peer, items: readonly Item[], plane?: Plane): void {
    const link = this.#deps.links.get(peer.node)
    const way = plane ?? (link === null || this.#deps.ways.mayPassUdp(peer) ? 'udp' : 'tcp')
    if (way === 'udp') this.sendTo(addressOf(peer), peer, items)
    else link?.send(MESSAGE.gossip, encodeLetter(this.#letterFor(peer, items)))
  }

  /** `run` of the peer, or the one that is known. */
  sendTo(
    address: PeerAddress | null,
    peer: Peer,
    items: readonly Item[],
    run?: Opened['instance'],
  ): void {
    if (address === null) return
    const packet = this.#deps.packets.seal(peer.node, this.#letterFor(peer, items), run)
    if (packet !== null) this.#deps.transmit(packet, address)
  }

  #letterFor(peer: Peer, items: readonly Item[]): Letter {
    // What is sent to one that perhaps does not hear it does not count as told.
    const { udp, tcp } = this.#deps.ways.sightOf(peer)
    const isHeard = peer.life === 'alive' && (udp.works === true || tcp.works === true)
    const words: Item[] = this.#rumours.take(WORDS_MAX, isHeard)
    // Who is accused hears of it first, and can refute (Lifeguard's buddy system).
    if (peer.life !== 'alive' && peer.incarnation > 0) {
      words.push({ kind: 'suspect', node: peer.node, incarnation: peer.incarnation })
    }
    return {
      incarnation: this.#incarnation,
      heard: this.#deps.ways.heardOf(peer),
      items: [...items, ...words],
    }
  }

  /** Tells everybody, with what goes to them anyway and soon by itself. */
  spread(word: Word): void {
    this.#rumours.spread(word, this.#deps.peers.size + 1)
    this.#gossiping ??= this.#deps.clock.after(0, () => this.#gossip())
  }

  #gossip(): void {
    this.#gossiping = null
    if (this.#rumours.isEmpty) return
    const living = [...this.#deps.peers.values()].filter(({ life }) => life !== 'dead')
    if (living.length === 0) return
    this.#gossiping = this.#deps.clock.after(GOSSIP_MS, () => this.#gossip())
    for (const peer of shuffled(living, this.#deps.random).slice(0, GOSSIP_TO)) this.send(peer, [])
  }

  /** Somebody is in reach again: what there is to tell is told now. */
  resume(): void {
    if (!this.#rumours.isEmpty) this.#gossiping ??= this.#deps.clock.after(0, () => this.#gossip())
  }

  /**
   * Says that this node lives, again when that was refuted before: who accuses has not heard of
   * it. True when the accusation was news.
   */
  refute(accused: number): boolean {
    const isNews = accused >= this.#incarnation
    if (isNews) this.#incarnation = accused + 1
    this.spread({ kind: 'alive', node: this.#deps.self.node, incarnation: this.#incarnation })
    return isNews
  }
}
