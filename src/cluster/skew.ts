/**
 * How far the clocks of the peers are from ours, heard from their beats. A clock that most others
 * contradict is taken for the wrong one (design: cluster.md, State).
 */
import type { Clock } from '../base/clock.ts'
import type { NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'

/** From here on it is worth a line in the log; below half of it the episode is over. */
const WARN_MS = 2_000
/** Stamps of a clock that is further ahead are not believed by others (config/stamp.ts). */
const TROUBLE_MS = 60_000
/** Beats whose best is taken: a late one only makes the peer look slow. */
const SAMPLES = 3
/** A peer that was silent for longer has no say. */
const HEARD_MS = 300_000

type Heard = {
  /** The peer's wall time less our monotonic time: stays right when our own clock is set. */
  readonly samples: number[]
  heardMono: number
  warned: boolean
}

export class Skew {
  readonly #clock: Clock
  readonly #observer: Observer
  readonly #peers = new Map<NodeId, Heard>()
  #troubled = false

  constructor(clock: Clock, observer: Observer) {
    this.#clock = clock
    this.#observer = observer
  }

  /** A beat has come that was `delayMs` under way. */
  heard(node: NodeId, wallMs: number, delayMs: number): void {
    const monoMs = this.#clock.monoMs()
    const peer = this.#peers.get(node) ?? { samples: [], heardMono: monoMs, warned: false }
    this.#peers.set(node, peer)
    peer.samples.push(wallMs + delayMs - monoMs)
    if (peer.samples.length > SAMPLES) peer.samples.shift()
    peer.heardMono = monoMs
    this.#warn(node, peer)
  }

  forget(node: NodeId): void {
    this.#peers.delete(node)
  }

  /** The peer's clock less ours; null: not measured. */
  offsetMs(node: NodeId): number | null {
    const peer = this.#peers.get(node)
    return peer === undefined ? null : this.#offset(peer)
  }

  /** Why nobody may change a setting here, whole sentences; null: the clock is believed. */
  trouble(): string | null {
    const since = this.#clock.monoMs() - HEARD_MS
    const offsets = [...this.#peers.values()]
      .filter(({ heardMono }) => heardMono >= since)
      .map((peer) => this.#offset(peer))
    const median = medianNearZero(offsets)
    const troubled = offsets.length >= 2 && Math.abs(median) > TROUBLE_MS
    if (troubled !== this.#troubled) {
      this.#troubled = troubled
      const fields = { offsetMs: Math.round(-median), peers: offsets.length }
      this.#observer.emit(troubled ? 'clock.mistrusted' : 'clock.trusted', fields)
    }
    if (!troubled) return null
    const seconds = Math.round(Math.abs(median) / 1_000)
    const way = median < 0 ? 'ahead of' : 'behind'
    return (
      `The clock of this node is ${seconds} s ${way} the clocks of its ${offsets.length} peers. ` +
      'Settings cannot be changed here until it is right, because the other nodes would not take ' +
      'the change in its true order; mail is not affected.'
    )
  }

  #offset({ samples }: Heard): number {
    return Math.max(...samples) - (this.#clock.wallMs() - this.#clock.monoMs())
  }

  #warn(node: NodeId, peer: Heard): void {
    const offset = Math.abs(this.#offset(peer))
    if (!peer.warned && offset >= WARN_MS) {
      peer.warned = true
      this.#observer.emit('clock.skewed', { peer: node, offsetMs: Math.round(this.#offset(peer)) })
    } else if (offset < WARN_MS / 2) peer.warned = false
  }
}

/** Of two in the middle the one nearer to us: with two peers, one that agrees is enough. */
function medianNearZero(offsets: readonly number[]): number {
  const sorted = [...offsets].sort((a, b) => a - b)
  const low = sorted[Math.floor((sorted.length - 1) / 2)] ?? 0
  const high = sorted[Math.floor(sorted.length / 2)] ?? 0
  return Math.abs(low) < Math.abs(high) ? low : high
}
