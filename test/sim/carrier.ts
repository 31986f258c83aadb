/**
 * The rules of the feed in their shortest form, on plain streams: what src/cluster/sync.ts must
 * do, and where a mutant can do otherwise. It makes a seed cheap and its failures short.
 */
import type { Clock, Timer } from '../../src/base/clock.ts'
import { StoreError } from '../../src/base/errors.ts'
import type { NodeId } from '../../src/base/ids.ts'
import type { Network, PeerAddress, Stream, StreamHandlers } from '../../src/cluster/contract.ts'
import { joinVectors, meetVectors, type Vector } from '../../src/config/merge.ts'
import type { WireRow } from '../../src/store/feed.ts'
import type { SharedRows } from '../../src/store/shared.ts'
import type { Dice } from './dice.ts'

/** How the carrier works, and with `false` what a mutant does. */
export type Rules = {
  readonly batchBytes: number
  /** A vector travels only with the last batch. */
  readonly vectorAtEnd: boolean
  /** A cursor of another generation counts for nothing. */
  readonly generations: boolean
  /** What a peer has not said to be on its disk is not taken as known there. */
  readonly durableAcks: boolean
  readonly digests: boolean
  /** Own writes go out at once. */
  readonly pushes: boolean
  /** Of acknowledgements, 0..1: never sent. */
  readonly lostAcks: number
  /** Of rows in a batch, 0..1: left out. */
  readonly lostRows: number
}

export const RULES: Rules = {
  batchBytes: 64 * 1024,
  vectorAtEnd: true,
  generations: true,
  durableAcks: true,
  digests: true,
  pushes: true,
  lostAcks: 0,
  lostRows: 0,
}

type Message =
  | { kind: 'hello'; node: NodeId }
  | { kind: 'pull'; generation: string | null; after: number; seen: [string, number][] }
  | {
      kind: 'batch'
      generation: string
      rows: readonly WireRow[]
      upto: number
      final: boolean
      vector: [string, number][] | null
    }
  | { kind: 'ack'; vector: [string, number][] }
  | { kind: 'push'; rows: readonly WireRow[]; writer: string; after: number; upto: number }
  | { kind: 'more' }
  | { kind: 'digest'; vector: string; root: string; leaves: readonly string[] }
  | { kind: 'names'; leaf: number; rows: readonly { name: string; hash: string }[]; ask: boolean }
  | { kind: 'repair'; rows: readonly WireRow[] }

type Peer = {
  readonly stream: Stream
  node: NodeId | null
  input: Uint8Array
  isPulling: boolean
  /** It has seen the end of our feed and waits. */
  isIdle: boolean
  mismatches: number
  heardMono: number
}

const PORT = 2525
const BEAT_MS = 5_000
const SILENCE_MS = 15_000

export type CarrierOptions = {
  readonly id: NodeId
  readonly host: string
  readonly rows: SharedRows
  readonly rules: Rules
  /** The others of the cluster, as this node knows it now. */
  readonly peers: () => readonly { readonly id: NodeId; readonly host: string }[]
  readonly mayTalk: (id: NodeId) => boolean
  /** What each member has on its disk, from the rows of this node's memory of it. */
  readonly onRefused: (id: NodeId) => void
}

export class Carrier {
  repairs = 0
  readonly #options: CarrierOptions
  readonly #clock: Clock
  readonly #network: Network
  readonly #dice: Dice
  readonly #links = new Map<NodeId, Peer>()
  readonly #dialling = new Set<NodeId>()
  readonly #acked = new Map<NodeId, Vector>()
  #news: Timer | null = null

  constructor(
    options: CarrierOptions,
    deps: { readonly clock: Clock; readonly network: Network; readonly dice: Dice },
  ) {
    this.#options = options
    this.#clock = deps.clock
    this.#network = deps.network
    this.#dice = deps.dice
    // Refused only when the port is taken; nobody else is on this host.
    void this.#network.listen({ host: options.host, port: PORT }, (stream) => this.#open(stream))
    options.rows.onOwn(({ rows, writer, after, upto }) => {
      if (options.rules.pushes) {
        for (const peer of this.#links.values()) {
          this.#send(peer, { kind: 'push', rows, writer, after, upto })
        }
      }
      this.#tellNews()
    })
    this.#beat()
  }

  isLinked(id: NodeId): boolean {
    return this.#links.has(id)
  }

  drop(id: NodeId): void {
    this.#links.get(id)?.stream.terminate()
  }

  /** What all of `members` but this node have; null while one has not said it. */
  durable(members: readonly NodeId[]): Vector | null {
    let met: Vector | null = null
    for (const member of members) {
      const acked = this.#acked.get(member)
      if (acked === undefined) return null
      met = met === null ? acked : meetVectors(met, acked)
    }
    return met
  }

  // ---- connections ----

  #beat(): void {
    const { peers, id, mayTalk } = this.#options
    for (const [peer, link] of this.#links) {
      if (this.#clock.monoMs() - link.heardMono > SILENCE_MS || !mayTalk(peer)) {
        link.stream.terminate()
      }
    }
    for (const peer of peers()) {
      if (id < peer.id && !this.#links.has(peer.id)) this.#dial(peer.id, peer.host)
    }
    for (const peer of this.#links.values()) {
      if (!peer.isPulling) this.#pull(peer)
      this.#compare(peer)
    }
    this.#clock.after(BEAT_MS / 2 + this.#dice.between(0, BEAT_MS / 2), () => this.#beat())
  }

  #dial(id: NodeId, host: string): void {
    if (this.#dialling.has(id)) return
    this.#dialling.add(id)
    const address: PeerAddress = { host, port: PORT }
    this.#network
      .dial(address, (stream) => this.#open(stream), 5_000)
      .then(
        () => this.#dialling.delete(id),
        () => this.#dialling.delete(id),
      )
  }

  #open(stream: Stream): StreamHandlers {
    const peer: Peer = {
      stream,
      node: null,
      input: new Uint8Array(0),
      isPulling: false,
      isIdle: false,
      mismatches: 0,
      heardMono: this.#clock.monoMs(),
    }
    this.#send(peer, { kind: 'hello', node: this.#options.id })
    return {
      received: (bytes) => this.#received(peer, bytes),
      drained: () => {},
      closed: () => {
        if (peer.node !== null && this.#links.get(peer.node) === peer) this.#links.delete(peer.node)
      },
    }
  }

  #received(peer: Peer, bytes: Uint8Array): void {
    peer.heardMono = this.#clock.monoMs()
    const input = new Uint8Array(peer.input.length + bytes.length)
    input.set(peer.input)
    input.set(bytes, peer.input.length)
    let at = 0
    const view = new DataView(input.buffer)
    while (input.length - at >= 4) {
      const length = view.getUint32(at)
      if (input.length - at - 4 < length) break
      const text = Buffer.from(input.buffer, at + 4, length).toString()
      at += 4 + length
      try {
        this.#take(peer, JSON.parse(text) as Message)
      } catch (error) {
        // A disk that refuses: nothing was taken; the link comes again later.
        if (!(error instanceof StoreError)) throw error
        peer.stream.terminate()
        return
      }
    }
    peer.input = input.slice(at)
  }

  #send(peer: Peer, message: Message): void {
    const text = Buffer.from(JSON.stringify(message))
    const bytes = new Uint8Array(4 + text.length)
    new DataView(bytes.buffer).setUint32(0, text.length)
    bytes.set(text, 4)
    peer.stream.write(bytes)
  }

  // ---- the feed ----

  #take(peer: Peer, message: Message): void {
    if (message.kind === 'hello') return this.#greeted(peer, message.node)
    const { node } = peer
    if (node === null) return
    if (!this.#options.mayTalk(node)) {
      this.#options.onRefused(node)
      peer.stream.terminate()
      return
    }
    switch (message.kind) {
      case 'pull':
        return this.#answer(peer, message.generation, message.after, new Map(message.seen))
      case 'batch':
        return this.#applyBatch(peer, node, message)
      case 'ack':
        this.#acked.set(node, new Map(message.vector))
        return
      case 'push': {
        const { rows, writer, after, upto } = message
        const as = { kind: 'push', writer, after, upto } as const
        if (this.#options.rows.apply({ peer: node, rows, as }).changed > 0) this.#tellNews()
        return
      }
      case 'more':
        if (!peer.isPulling) this.#pull(peer)
        return
      case 'digest':
        return this.#digested(peer, message)
      case 'names':
        return this.#named(peer, message)
      case 'repair': {
        const { rows } = message
        const { changed } = this.#options.rows.apply({ peer: node, rows, as: { kind: 'repair' } })
        this.repairs += changed
        return
      }
      default:
        return
    }
  }

  #greeted(peer: Peer, node: NodeId): void {
    if (!this.#options.mayTalk(node)) {
      this.#options.onRefused(node)
      peer.stream.terminate()
      return
    }
    peer.node = node
    const before = this.#links.get(node)
    this.#links.set(node, peer)
    before?.stream.terminate()
    this.#pull(peer)
  }

  #pull(peer: Peer): void {
    if (peer.node === null) return
    peer.isPulling = true
    const { rows } = this.#options
    const cursor = rows.cursor(peer.node)
    this.#send(peer, {
      kind: 'pull',
      generation: cursor?.generation ?? null,
      after: cursor?.at ?? 0,
      seen: [...rows.vector()],
    })
  }

  #answer(peer: Peer, generation: string | null, after: number, seen: Vector): void {
    const { rows, rules } = this.#options
    const known = generation === rows.generation || !rules.generations
    const out = rows.read(known ? after : 0, seen, rules.batchBytes)
    peer.isIdle = out.final
    this.#send(peer, {
      kind: 'batch',
      generation: rows.generation,
      rows: out.rows.filter(() => rules.lostRows === 0 || !this.#dice.chance(rules.lostRows)),
      upto: out.upto,
      final: out.final,
      vector: out.final || !rules.vectorAtEnd ? [...rows.vector()] : null,
    })
  }

  #applyBatch(peer: Peer, node: NodeId, batch: Message & { kind: 'batch' }): void {
    const { rows, rules } = this.#options
    peer.isPulling = false
    const { changed } = rows.apply({
      peer: node,
      rows: batch.rows,
      as: {
        kind: 'batch',
        cursor: { generation: batch.generation, at: batch.upto },
        vector: batch.vector === null ? null : new Map(batch.vector),
      },
    })
    if (changed > 0) this.#tellNews()
    if (!batch.final) return this.#pull(peer)
    if (rules.lostAcks === 0 || !this.#dice.chance(rules.lostAcks)) {
      const mine = rows.vector()
      // A volatile one says what is on the way as well.
      const said = rules.durableAcks ? mine : joinVectors(mine, new Map(batch.vector ?? []))
      this.#send(peer, { kind: 'ack', vector: [...said] })
    }
  }

  #tellNews(): void {
    this.#news ??= this.#clock.after(20, () => {
      this.#news = null
      for (const peer of this.#links.values()) {
        if (!peer.isIdle) continue
        peer.isIdle = false
        this.#send(peer, { kind: 'more' })
      }
    })
  }

  // ---- the backstop ----

  #compare(peer: Peer): void {
    if (!this.#options.rules.digests) return
    const { rows } = this.#options
    const digest = rows.digest()
    if (digest === null) return
    this.#send(peer, { kind: 'digest', vector: textOf(rows.vector()), ...digest })
  }

  #digested(peer: Peer, digest: Message & { kind: 'digest' }): void {
    const { rows, rules } = this.#options
    const mine = rules.digests ? rows.digest() : null
    if (mine === null || textOf(rows.vector()) !== digest.vector || mine.root === digest.root) {
      peer.mismatches = 0
      return
    }
    peer.mismatches += 1
    if (peer.mismatches < 2) return
    for (const [leaf, sum] of digest.leaves.entries()) {
      if (mine.leaves[leaf] === sum) continue
      this.#send(peer, { kind: 'names', leaf, rows: rows.leaf(leaf), ask: true })
    }
  }

  #named(peer: Peer, { leaf, rows: theirs, ask }: Message & { kind: 'names' }): void {
    const { rows } = this.#options
    const known = new Map(theirs.map(({ name, hash }) => [name, hash]))
    const mine = rows.leaf(leaf)
    const lacking = mine.filter(({ name, hash }) => known.get(name) !== hash)
    if (lacking.length > 0) {
      const repair = rows.rowsOf(lacking.map(({ name }) => name))
      this.#send(peer, { kind: 'repair', rows: repair })
    }
    if (ask) this.#send(peer, { kind: 'names', leaf, rows: mine, ask: false })
  }
}

function textOf(vector: Vector): string {
  return [...vector]
    .map(([writer, seq]) => `${writer}${seq}`)
    .sort()
    .join()
}
