/**
 * The network of a simulation: datagrams that are lost, doubled and reordered, and streams of
 * ordered bytes that come in any pieces, stall, and break at any byte. Nothing here knows what
 * the bytes mean.
 */
import { RefusalError } from '../../src/base/errors.ts'
import type { Network, PeerAddress, Stream, StreamHandlers } from '../../src/cluster/contract.ts'
import { UnreachableError } from '../../src/cluster/network.ts'
import type { Dice } from './dice.ts'
import type { SimProcess, World } from './world.ts'

export type Plane = 'tcp' | 'udp'

/** How the wires of one simulation behave; both directions of a pair draw from it. */
export type Weather = {
  readonly latencyMs: number
  /** Mean of the exponential part. */
  readonly jitterMs: number
  /** Of datagrams, 0..1. */
  readonly loss: number
  readonly duplicate: number
  /** Of the pieces of a stream: the stream breaks somewhere inside one. */
  readonly reset: number
  /** How streams are cut into pieces. */
  readonly pieces: 'whole' | 'split' | 'crumbs'
  readonly bytesPerSecond: number | null
}

export const CALM: Weather = {
  latencyMs: 2,
  jitterMs: 0.5,
  loss: 0,
  duplicate: 0,
  reset: 0,
  pieces: 'whole',
  bytesPerSecond: null,
}

/** True for what cannot pass. */
export type Cut = (from: string, to: string, plane: Plane) => boolean

export type Traffic = { udpIn: number; udpOut: number; tcpIn: number; tcpOut: number }

/** The kernel gives up a connection whose bytes were not acknowledged for this long. */
const STUCK_MS_MAX = 90_000
/** What a sender may have on the way before it is told to wait. */
const WINDOW_BYTES = 256 * 1024
/** A datagram waits this long for a slow wire, then it is dropped. */
const UDP_QUEUE_MS_MAX = 500
const UDP_OVERHEAD = 28
const TCP_OVERHEAD = 40
const DATAGRAM_BYTES_MAX = 1_200
const LOOPBACK_MS = 0.05

type Listener = {
  readonly process: SimProcess
  readonly open: (stream: Stream) => StreamHandlers
}
type Receiver = {
  readonly process: SimProcess
  readonly received: (bytes: Uint8Array, from: PeerAddress) => void
}

export class Fabric {
  readonly world: World
  weather: Weather
  readonly traffic = new Map<string, Traffic>()
  /** Sees every byte that leaves a host. */
  tap: ((bytes: Uint8Array, from: string, to: string, plane: Plane) => void) | null = null
  readonly #dice: Dice
  readonly #listeners = new Map<string, Listener>()
  readonly #receivers = new Map<string, Receiver>()
  readonly #cuts = new Map<string, Cut>()
  readonly #clogged = new Set<string>()
  readonly #slow = new Map<string, number>()
  readonly #down = new Set<string>()
  readonly #freeAt = new Map<string, number>()
  readonly #pipes = new Set<Pipe>()
  #port = 40_000

  constructor(world: World, weather: Weather) {
    this.world = world
    this.weather = weather
    this.#dice = world.dice.split('network')
  }

  /** What one process sees of the network; `host` is its only address. */
  attach(host: string, process: SimProcess): Network {
    return {
      listen: (address, open) => this.#listen(host, address, open, process),
      dial: (address, open, timeoutMs) => this.#dial(host, address, open, timeoutMs, process),
      datagrams: (address, received) => this.#datagrams(host, address, received, process),
    }
  }

  // ---- faults ----

  /** Cuts what `cut` says until `heal` with the same name. */
  cut(name: string, cut: Cut): void {
    this.#cuts.set(name, cut)
    this.#kick()
  }

  heal(name: string): void {
    if (this.#cuts.delete(name)) this.#kick()
  }

  /** Nothing passes from `from` to `to` for now, nothing is lost either: it waits. */
  clog(from: string, to: string): void {
    this.#clogged.add(`${from}>${to}`)
  }

  unclog(from: string, to: string): void {
    if (this.#clogged.delete(`${from}>${to}`)) this.#kick()
  }

  /** Bytes per second from one host to all others; null lifts it. */
  slow(from: string, bytesPerSecond: number | null): void {
    if (bytesPerSecond === null) this.#slow.delete(from)
    else this.#slow.set(from, bytesPerSecond)
  }

  /** No cut, no clog, no slow wire is left. Hosts that are down stay down. */
  healAll(): void {
    this.#cuts.clear()
    this.#clogged.clear()
    this.#slow.clear()
    this.#kick()
  }

  get isCut(): boolean {
    return this.#cuts.size > 0
  }

  passes(from: string, to: string, plane: Plane): boolean {
    if (this.#down.has(from) || this.#down.has(to)) return false
    if (from === to) return true
    for (const cut of this.#cuts.values()) if (cut(from, to, plane)) return false
    return true
  }

  /**
   * The process of a host ended. `quiet`: the machine lost its power, nobody hears of it until
   * they try; else the kernel closes every connection.
   */
  ended(host: string, process: SimProcess, quiet: boolean): void {
    for (const [name, { process: owner }] of this.#listeners) {
      if (owner === process) this.#listeners.delete(name)
    }
    for (const [name, { process: owner }] of this.#receivers) {
      if (owner === process) this.#receivers.delete(name)
    }
    for (const pipe of this.#pipes) if (pipe.from.process === process) pipe.from.die(quiet)
    if (quiet) this.#down.add(host)
  }

  started(host: string): void {
    this.#down.delete(host)
  }

  trafficOf(host: string): Traffic {
    let traffic = this.traffic.get(host)
    if (traffic === undefined) {
      traffic = { udpIn: 0, udpOut: 0, tcpIn: 0, tcpOut: 0 }
      this.traffic.set(host, traffic)
    }
    return traffic
  }

  // ---- streams ----

  #listen(
    host: string,
    address: PeerAddress,
    open: (stream: Stream) => StreamHandlers,
    process: SimProcess,
  ): Promise<{ readonly port: number; close(): void }> {
    const port = address.port === 0 ? this.#nextPort() : address.port
    const name = `${host}:${port}`
    if (this.#listeners.has(name)) return Promise.reject(inUse(name))
    const listener = { process, open }
    this.#listeners.set(name, listener)
    return Promise.resolve({
      port,
      close: () => {
        if (this.#listeners.get(name) === listener) this.#listeners.delete(name)
      },
    })
  }

  #dial(
    host: string,
    to: PeerAddress,
    open: (stream: Stream) => StreamHandlers,
    timeoutMs: number,
    process: SimProcess,
  ): Promise<void> {
    const { world } = this
    return new Promise((resolve, reject) => {
      let isOver = false
      const over = (act: () => void): void => {
        if (isOver) return
        isOver = true
        timer.cancel()
        act()
      }
      const timer = world.after(timeoutMs, () => over(() => reject(noAnswer(to))), process)
      this.#count(host, to.host, 'tcp', TCP_OVERHEAD)
      if (!this.passes(host, to.host, 'tcp')) return
      world.after(this.#transit(host, to.host, 0), () => {
        const listener = this.#listeners.get(`${to.host}:${to.port}`)
        if (!this.passes(to.host, host, 'tcp')) return
        const backMs = this.#transit(to.host, host, 0)
        if (listener === undefined || !listener.process.isAlive) {
          world.after(backMs, () => over(() => reject(refused(to))), process)
          return
        }
        const local = { host, port: this.#nextPort() }
        const here = new End(this, process, local, to)
        const there = new End(this, listener.process, to, local)
        here.other = there
        there.other = here
        this.#pipes.add(here.pipe)
        this.#pipes.add(there.pipe)
        there.attach(listener.open)
        world.after(
          backMs,
          () => {
            if (isOver) return here.die(false)
            over(() => {
              here.attach(open)
              resolve()
            })
          },
          process,
        )
        world.after(backMs + 1, () => {
          if (!process.isAlive) here.die(false)
        })
      })
    })
  }

  #nextPort(): number {
    this.#port += 1
    return this.#port
  }

  forget(pipe: Pipe): void {
    this.#pipes.delete(pipe)
  }

  isClogged(from: string, to: string): boolean {
    return this.#clogged.has(`${from}>${to}`)
  }

  /** How long `bytes` take from one host to another, now, behind what is on the wire before. */
  #transit(from: string, to: string, bytes: number): number {
    if (from === to) return LOOPBACK_MS
    const { latencyMs, jitterMs, bytesPerSecond } = this.weather
    const rate = this.#slow.get(from) ?? bytesPerSecond
    let waitMs = 0
    if (rate !== null) {
      const wire = `${from}>${to}`
      const freeAt = Math.max(this.world.nowMs, this.#freeAt.get(wire) ?? 0)
      const sentAt = freeAt + (bytes * 1_000) / rate
      this.#freeAt.set(wire, sentAt)
      waitMs = sentAt - this.world.nowMs
    }
    return waitMs + latencyMs + (jitterMs > 0 ? this.#dice.exponential(jitterMs) : 0)
  }

  /** For pipes: the same, and the bytes are counted and tapped. */
  send(from: string, to: string, bytes: Uint8Array): number {
    this.#count(from, to, 'tcp', bytes.length + TCP_OVERHEAD)
    this.tap?.(bytes, from, to, 'tcp')
    return this.#transit(from, to, bytes.length + TCP_OVERHEAD)
  }

  /** Where a piece breaks: null for not at all, else after so many of its bytes. */
  breakAt(from: string, to: string, length: number): number | null {
    if (from === to || this.weather.reset === 0) return null
    return this.#dice.chance(this.weather.reset) ? this.#dice.below(length + 1) : null
  }

  cutUp(bytes: Uint8Array): readonly Uint8Array[] {
    const { pieces } = this.weather
    if (pieces === 'whole' || bytes.length < 2) return [bytes]
    const at = [0]
    const most = pieces === 'split' ? 2 : Math.min(12, bytes.length)
    for (let cut = 1; cut < most; cut += 1) at.push(1 + this.#dice.below(bytes.length - 1))
    at.push(bytes.length)
    at.sort((a, b) => a - b)
    const cutUp: Uint8Array[] = []
    for (let index = 1; index < at.length; index += 1) {
      const piece = bytes.slice(at[index - 1], at[index])
      if (piece.length > 0) cutUp.push(piece)
    }
    return cutUp
  }

  /** After a cut was healed, TCP tries again when its own timer says so. */
  retryMs(): number {
    return this.#dice.between(5, 1_500)
  }

  #kick(): void {
    for (const pipe of this.#pipes) pipe.kick()
  }

  // ---- datagrams ----

  #datagrams(
    host: string,
    address: PeerAddress,
    received: (bytes: Uint8Array, from: PeerAddress) => void,
    process: SimProcess,
  ): Promise<{
    readonly port: number
    send(bytes: Uint8Array, to: PeerAddress): void
    close(): void
  }> {
    const port = address.port === 0 ? this.#nextPort() : address.port
    const name = `${host}:${port}`
    if (this.#receivers.has(name)) return Promise.reject(inUse(name))
    const receiver = { process, received }
    this.#receivers.set(name, receiver)
    return Promise.resolve({
      port,
      send: (bytes, to) => {
        if (process.isAlive) this.sendDatagram(bytes.slice(), { host, port }, to)
      },
      close: () => {
        if (this.#receivers.get(name) === receiver) this.#receivers.delete(name)
      },
    })
  }

  /** Also for whoever forges or replays one. */
  sendDatagram(bytes: Uint8Array, from: PeerAddress, to: PeerAddress): void {
    if (bytes.length > DATAGRAM_BYTES_MAX) {
      this.world.violate(`a datagram of ${bytes.length} bytes (at most ${DATAGRAM_BYTES_MAX})`)
    }
    this.#count(from.host, to.host, 'udp', bytes.length + UDP_OVERHEAD)
    this.tap?.(bytes, from.host, to.host, 'udp')
    const dice = this.#dice
    const { loss, duplicate } = this.weather
    if (from.host !== to.host) {
      if (loss > 0 && dice.chance(loss)) return
      if (this.isClogged(from.host, to.host)) return
    }
    if (!this.passes(from.host, to.host, 'udp')) return
    this.#deliverDatagram(bytes, from, to)
    if (duplicate > 0 && dice.chance(duplicate)) this.#deliverDatagram(bytes, from, to)
  }

  #deliverDatagram(bytes: Uint8Array, from: PeerAddress, to: PeerAddress): void {
    const transitMs = this.#transit(from.host, to.host, bytes.length + UDP_OVERHEAD)
    if (transitMs > this.weather.latencyMs + UDP_QUEUE_MS_MAX + 20 * this.weather.jitterMs) return
    this.world.after(transitMs, () => {
      const receiver = this.#receivers.get(`${to.host}:${to.port}`)
      if (receiver === undefined || !this.passes(from.host, to.host, 'udp')) return
      const deliver = (): void => {
        if (this.#receivers.get(`${to.host}:${to.port}`) !== receiver) return
        this.trafficOf(to.host).udpIn += bytes.length + UDP_OVERHEAD
        this.world.note(bytes.length)
        receiver.received(bytes.slice(), from)
      }
      // By an event of the process, so that a stalled one reads it late.
      this.world.after(0, deliver, receiver.process)
    })
  }

  #count(from: string, to: string, plane: Plane, bytes: number): void {
    if (from === to) return
    const traffic = this.trafficOf(from)
    if (plane === 'udp') traffic.udpOut += bytes
    else traffic.tcpOut += bytes
  }
}

/** One direction of a connection: what its end wrote and the other has not read. */
class Pipe {
  readonly from: End
  readonly #fabric: Fabric
  readonly #queue: { readonly atMs: number; readonly bytes: Uint8Array | 'end' | 'reset' }[] = []
  #isPlanned = false
  #stuckSinceMs: number | null = null
  #lastAtMs = 0
  bytes = 0
  isFull = false

  constructor(fabric: Fabric, from: End) {
    this.#fabric = fabric
    this.from = from
  }

  push(bytes: Uint8Array | 'end' | 'reset'): void {
    const { world } = this.#fabric
    const { local, remote } = this.from
    const transitMs =
      bytes === 'end' || bytes === 'reset'
        ? this.#fabric.send(local.host, remote.host, new Uint8Array(0))
        : this.#fabric.send(local.host, remote.host, bytes)
    if (bytes === 'reset') this.#queue.length = 0
    this.#lastAtMs = Math.max(this.#lastAtMs, world.nowMs + transitMs)
    this.#queue.push({ atMs: this.#lastAtMs, bytes })
    if (typeof bytes !== 'string') this.bytes += bytes.length
    this.#plan()
  }

  /** The wires changed: what waits may pass. */
  kick(): void {
    if (this.#stuckSinceMs === null || !this.#isOpen()) return
    this.#stuckSinceMs = null
    this.#isPlanned = true
    this.#fabric.world.after(this.#fabric.retryMs(), () => this.#deliver())
  }

  #isOpen(): boolean {
    const { local, remote } = this.from
    return (
      this.#fabric.passes(local.host, remote.host, 'tcp') &&
      // Without the way back nothing is acknowledged: the sender stands still.
      this.#fabric.passes(remote.host, local.host, 'tcp') &&
      !this.#fabric.isClogged(local.host, remote.host)
    )
  }

  #plan(): void {
    const head = this.#queue[0]
    if (this.#isPlanned || this.#stuckSinceMs !== null || head === undefined) return
    this.#isPlanned = true
    this.#fabric.world.after(head.atMs - this.#fabric.world.nowMs, () => this.#deliver())
  }

  #deliver(): void {
    this.#isPlanned = false
    const { world } = this.#fabric
    if (this.#queue.length === 0) return
    if (!this.#isOpen()) return this.#stick()
    const target = this.from.other
    const process = target?.process
    if (process?.isAlive === true && process.stalledUntilMs > world.nowMs) {
      // The kernel of the target keeps it until the process reads again.
      this.#isPlanned = true
      world.after(process.stalledUntilMs - world.nowMs + 0.01, () => this.#deliver())
      return
    }
    const head = this.#queue.shift()
    if (head !== undefined) this.#hand(head.bytes)
    this.#plan()
  }

  #hand(bytes: Uint8Array | 'end' | 'reset'): void {
    const target = this.from.other
    if (bytes === 'end' || bytes === 'reset') {
      target?.close(bytes === 'end' ? 'the other side closed' : 'reset by the other side')
      this.#fabric.forget(this)
      return
    }
    this.bytes -= bytes.length
    if (target === null || !target.isOpen) {
      // Nobody is there: a reset comes back.
      this.from.close('reset by the other side')
      return
    }
    const { local, remote } = this.from
    const length = this.#fabric.breakAt(local.host, remote.host, bytes.length)
    if (length === null) {
      target.receive(bytes)
    } else {
      if (length > 0) target.receive(bytes.slice(0, length))
      this.#fabric.world.tell(() => `stream ${local.host} to ${remote.host} breaks`)
      target.close('reset by the network')
      this.from.close('reset by the network')
      return
    }
    if (this.isFull && this.bytes < WINDOW_BYTES / 2) {
      this.isFull = false
      this.from.drain()
    }
  }

  #stick(): void {
    const { world } = this.#fabric
    const sinceMs = world.nowMs
    this.#stuckSinceMs = sinceMs
    world.after(STUCK_MS_MAX, () => {
      if (this.#stuckSinceMs !== sinceMs) return
      this.from.close('timed out')
      this.#queue.length = 0
      this.#fabric.forget(this)
    })
  }
}

/** One end of a connection, as its process holds it. */
class End implements Stream {
  readonly process: SimProcess
  readonly local: PeerAddress
  readonly remote: PeerAddress
  readonly pipe: Pipe
  other: End | null = null
  /** False once this side closed or was told that the other did. */
  isOpen = true
  readonly #fabric: Fabric
  #handlers: StreamHandlers | null = null
  #waiting: (() => void)[] = []
  #isEnding = false

  constructor(fabric: Fabric, process: SimProcess, local: PeerAddress, remote: PeerAddress) {
    this.#fabric = fabric
    this.process = process
    this.local = local
    this.remote = remote
    this.pipe = new Pipe(fabric, this)
  }

  attach(open: (stream: Stream) => StreamHandlers): void {
    this.#fabric.world.after(
      0,
      () => {
        this.#handlers = open(this)
        const waiting = this.#waiting
        this.#waiting = []
        for (const run of waiting) run()
      },
      this.process,
    )
  }

  write(bytes: Uint8Array): boolean {
    if (!this.isOpen || this.#isEnding || !this.process.isAlive) return false
    this.pipe.push(bytes.slice())
    if (this.pipe.bytes > WINDOW_BYTES) this.pipe.isFull = true
    return !this.pipe.isFull
  }

  end(): void {
    if (!this.isOpen || this.#isEnding) return
    this.#isEnding = true
    this.pipe.push('end')
    this.#fabric.world.after(1, () => this.close('closed here'))
  }

  terminate(): void {
    if (!this.isOpen) return
    this.pipe.push('reset')
    this.#fabric.world.after(0, () => this.close('closed here'))
    this.isOpen = false
  }

  receive(bytes: Uint8Array): void {
    this.#fabric.trafficOf(this.local.host).tcpIn += bytes.length + TCP_OVERHEAD
    this.#fabric.world.note(bytes.length)
    for (const piece of this.#fabric.cutUp(bytes)) {
      this.#hand(() => {
        if (this.isOpen) this.#handlers?.received(piece)
        // They were lent: who kept a view of them reads nonsense from here on.
        piece.fill(0xa5)
      })
    }
  }

  drain(): void {
    this.#hand(() => {
      if (this.isOpen) this.#handlers?.drained()
    })
  }

  #isClosed = false

  close(why: string): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.isOpen = false
    this.#hand(() => this.#handlers?.closed(why))
  }

  /** The process is gone; `quiet`: without a word. */
  die(quiet: boolean): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.isOpen = false
    if (!quiet) this.pipe.push('reset')
  }

  #hand(run: () => void): void {
    if (!this.process.isAlive) return
    if (this.#handlers === null) {
      this.#waiting.push(run)
      return
    }
    run()
  }
}

function inUse(name: string): RefusalError {
  return new RefusalError('unavailable', 'listen', `${name} is in use.`, 'Choose another port.')
}

function noAnswer({ host, port }: PeerAddress): UnreachableError {
  return new UnreachableError(`${host}:${port} does not answer`, { isRefused: false })
}

function refused({ host, port }: PeerAddress): UnreachableError {
  return new UnreachableError(`${host}:${port} refuses`, { isRefused: true })
}
