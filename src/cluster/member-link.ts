/** One link with one member: a channel, who is at its other end, and how quickly he answers. */
import type { Timer } from '../base/clock.ts'
import type { NodeId } from '../base/ids.ts'
import type { WriterId } from '../config/merge.ts'
import type { SecureChannel } from './channel.ts'
import { type ClusterDeps, type Link, MESSAGE, type PeerAddress } from './contract.ts'
import { REFUSALS, type Refusal } from './secure.ts'

/** The run of a node, as it says in the handshake. */
export type Run = { readonly instance: WriterId; readonly epoch: number }

const PROBE_BYTES = 8
/** What a peer may ask to have sent back. */
const ECHO_BYTES_MAX = 64
const PROBES_MAX = 16
/** A link on which nothing came for so long is asked, and asked again. */
const IDLE_MS = 5_000
/** Three questions without an answer. */
const SILENT_MS_MAX = 15_000
/** A busy link is measured, too. */
const MEASURE_MS = 30_000

type Probe = {
  readonly sentMono: number
  readonly sentBoot: number
  readonly answered: ((isAlive: boolean) => void) | null
}

export type LinkListener = {
  message(type: number, body: Uint8Array): void
  /** The other side refuses us, on second thoughts. */
  refused(code: number): void
  closed(why: string): void
}

export class MemberLink implements Link {
  readonly peer: NodeId
  readonly instance: WriterId
  readonly epoch: number
  readonly outgoing: boolean
  readonly #channel: SecureChannel
  readonly #deps: ClusterDeps
  readonly #probes = new Map<string, Probe>()
  #roundTripMs: number | null = null
  #ackedBoot: number | null = null
  #probedMono = 0
  #timer: Timer | null = null

  constructor(
    channel: SecureChannel,
    who: { readonly peer: NodeId; readonly run: Run; readonly outgoing: boolean },
    deps: ClusterDeps,
  ) {
    this.#channel = channel
    this.peer = who.peer
    this.instance = who.run.instance
    this.epoch = who.run.epoch
    this.outgoing = who.outgoing
    this.#deps = deps
  }

  get remote(): PeerAddress {
    return this.#channel.remote
  }

  get roundTripMs(): number | null {
    return this.#roundTripMs
  }

  get heardMono(): number {
    return this.#channel.heardMono
  }

  get ackedBoot(): number | null {
    return this.#ackedBoot
  }

  get backlogBytes(): number {
    return this.#channel.backlogBytes
  }

  /** The static key that this link was opened with. */
  get exchangeKey(): Uint8Array {
    return this.#channel.peerExchangeKey
  }

  send(type: number, body: Uint8Array, bulk = false): boolean {
    return this.#channel.send(type, body, bulk)
  }

  onceDrained(run: () => void): void {
    this.#channel.onceDrained(run)
  }

  close(why: string): void {
    this.#channel.terminate(why)
  }

  /** Takes messages from here on. */
  start(listener: LinkListener): void {
    this.#channel.start({
      message: (type, body) => {
        if (type === MESSAGE.probe) this.#echo(body)
        else if (type !== MESSAGE.probed || !this.#answered(body)) listener.message(type, body)
      },
      notice: (code) => listener.refused(code),
      closed: (why) => {
        // First: who waits for a proof of life must find that this link is none any more.
        listener.closed(why)
        this.#stop()
      },
    })
    this.#ask(null)
    this.#watch()
  }

  /** Tells the other side that it may speak. */
  welcome(): void {
    this.#channel.notice(0)
  }

  /** Says why and closes; what waits to be sent is not sent any more. */
  refuse(refusal: Refusal): void {
    this.#stop()
    this.#channel.dismiss(REFUSALS.indexOf(refusal))
  }

  /**
   * Whether somebody is at the other end now, not some time ago: he must send back what he could
   * not know before. False after `withinMs` or when the link closes.
   */
  probe(withinMs: number, answered: (isAlive: boolean) => void): void {
    let isOver = false
    const once = (isAlive: boolean): void => {
      if (isOver) return
      isOver = true
      timer.cancel()
      answered(isAlive)
    }
    const timer = this.#deps.clock.after(withinMs, () => once(false))
    this.#ask(once)
  }

  #ask(answered: Probe['answered']): void {
    const nonce = this.#deps.random.bytes(PROBE_BYTES)
    this.#probedMono = this.#deps.clock.monoMs()
    const sentBoot = this.#deps.clock.bootMs()
    this.#probes.set(nonce.toHex(), { sentMono: this.#probedMono, sentBoot, answered })
    if (this.#probes.size > PROBES_MAX) {
      const [oldest] = this.#probes.keys()
      if (oldest !== undefined) this.#probes.delete(oldest)
    }
    this.#channel.send(MESSAGE.probe, nonce)
  }

  #echo(body: Uint8Array): void {
    if (body.length <= ECHO_BYTES_MAX) this.#channel.send(MESSAGE.probed, body)
  }

  /** False: no question of ours. */
  #answered(body: Uint8Array): boolean {
    if (body.length !== PROBE_BYTES) return false
    const name = body.toHex()
    const probe = this.#probes.get(name)
    if (probe === undefined) return false
    this.#probes.delete(name)
    const tookMs = this.#deps.clock.monoMs() - probe.sentMono
    this.#ackedBoot = Math.max(this.#ackedBoot ?? 0, probe.sentBoot)
    // RFC 6298 section 2.
    this.#roundTripMs =
      this.#roundTripMs === null ? tookMs : this.#roundTripMs * 0.875 + tookMs * 0.125
    probe.answered?.(true)
    return true
  }

  #watch(): void {
    const { clock } = this.#deps
    const nowMono = clock.monoMs()
    const { heardMono } = this.#channel
    if (nowMono - heardMono >= SILENT_MS_MAX) {
      return this.close(`nothing came for ${SILENT_MS_MAX / 1_000} s`)
    }
    const isIdle = nowMono - Math.max(heardMono, this.#probedMono) >= IDLE_MS
    if (isIdle || nowMono - this.#probedMono >= MEASURE_MS) this.#ask(null)
    const nextMono = Math.min(
      Math.max(heardMono, this.#probedMono) + IDLE_MS,
      heardMono + SILENT_MS_MAX,
    )
    this.#timer = clock.after(Math.max(1, nextMono - nowMono), () => this.#watch())
  }

  #stop(): void {
    this.#timer?.cancel()
    const probes = [...this.#probes.values()]
    this.#probes.clear()
    for (const { answered } of probes) answered?.(false)
  }
}
