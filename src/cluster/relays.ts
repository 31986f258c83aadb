/** Questions that a node asks for others, who got no answer themselves. */
import type { Timer } from '../base/clock.ts'
import type { NodeId } from '../base/ids.ts'
import { type Random, randomHex } from '../base/random.ts'
import type { Item, ProbeId } from './letter.ts'
import { directMs, type Peer } from './peer.ts'
import type { StallClock } from './stalls.ts'

/** Open at a time; more are not taken. */
const RELAYS_MAX = 64

export type RelaysDeps = {
  /** Read as they are at each call. */
  readonly peers: ReadonlyMap<NodeId, Peer>
  readonly clock: StallClock
  readonly random: Random
  readonly ping: (peer: Peer, probe: ProbeId) => void
  readonly tell: (peer: Peer, item: Item) => void
}

/** `probe`: the question as its asker `of` knows it. */
type Relay = { readonly of: NodeId; readonly probe: ProbeId; readonly timer: Timer }

export class Relays {
  readonly #deps: RelaysDeps
  /** By the question as it is asked here. */
  readonly #open = new Map<ProbeId, Relay>()

  constructor(deps: RelaysDeps) {
    this.#deps = deps
  }

  close(): void {
    for (const { timer } of this.#open.values()) timer.cancel()
  }

  /** Asks `target`. Who wants to know is told of an answer, or in time that none came. */
  ask(of: Peer, probe: ProbeId, target: NodeId): void {
    const { peers, clock, random, ping, tell } = this.#deps
    const peer = peers.get(target)
    if (peer === undefined || this.#open.size >= RELAYS_MAX) {
      tell(of, { kind: 'nack', probe })
      return
    }
    const id = randomHex(random, 8)
    const timer = clock.after(directMs(peer), () => {
      this.#open.delete(id)
      tell(of, { kind: 'nack', probe })
    })
    this.#open.set(id, { of: of.node, probe, timer })
    ping(peer, id)
  }

  /** False: it was no question of others. */
  answered(id: ProbeId): boolean {
    const relay = this.#open.get(id)
    if (relay === undefined) return false
    relay.timer.cancel()
    this.#open.delete(id)
    const asker = this.#deps.peers.get(relay.of)
    if (asker !== undefined) this.#deps.tell(asker, { kind: 'ack', probe: relay.probe })
    return true
  }
}
