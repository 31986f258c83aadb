/**
 * How each other member is gone, as far as its mail is concerned (design: mail.md, A dead node).
 * Silence may be a cut wire; it is dead for sure when every living member is refused at each of its
 * addresses, or when somebody removed it. While all live this costs nothing: only who is not alive
 * is dialled, and only about him are others asked.
 *
 * Silence is counted while this node is awake itself: what it slept through proves nothing.
 */
import { isIP } from 'node:net'
import type { Timer } from '../base/clock.ts'
import { type NodeId, parseNodeId } from '../base/ids.ts'
import type { Calls, ClusterDeps, Member, Members, PeerAddress, Roster } from './contract.ts'
import { UnreachableError } from './network.ts'
import type { Patience } from './patience.ts'

const TOPIC = 'dead.seen'
/** Of the time after which refusals confirm a death: so often it is dialled, and others are asked. */
const LOOKS_TO_CONFIRM = 6
/** Where nobody even refuses, every so many looks are enough. */
const LOOKS_IF_SILENT = 4
const DIAL_MS_MAX = 2_000
/** A look that is later than this many times its time: this node stood still meanwhile. */
const LATE_LOOKS = 2

export type Absence =
  | { readonly kind: 'here' }
  /** Perhaps it lives where this node cannot see it. */
  | { readonly kind: 'silent'; readonly silentMs: number; readonly contactBoot: number }
  /** Its machine says that nothing runs; the others have not all said the same yet. */
  | (Refusals & { readonly kind: 'refused' })
  | (Refusals & { readonly kind: 'confirmed'; readonly why: 'refused' })
  | { readonly kind: 'confirmed'; readonly why: 'removed' }

type Refusals = {
  readonly silentMs: number
  /** Boot ms of the last contact; of the start of this node when there was none. */
  readonly contactBoot: number
  /** Since the first refusal, without another answer in between. */
  readonly refusedMs: number
  /** Boot ms of the first refusal. */
  readonly refusedBoot: number
}

export type AbsenceOptions = {
  readonly roster: Pick<Roster, 'self' | 'get' | 'peers' | 'onChange'>
  readonly members: Members
  readonly calls: Calls
  readonly patience: Patience
}

/** What is known of one peer that is or was away. */
type Seen = {
  silentMs: number
  contactBoot: number
  /** Null: the last dial was not refused everywhere. */
  refusedBoot: number | null
  refusedMs: number
  /** Every living member saw the same at the last look. */
  isAgreed: boolean
  isBusy: boolean
  /** Looks until the next dial. */
  pause: number
}

export class Absences {
  readonly #options: AbsenceOptions
  readonly #deps: ClusterDeps
  readonly #seen = new Map<NodeId, Seen>()
  readonly #lookMs: number
  readonly #listeners: ((awakeMs: number) => void)[] = []
  /** Confirmed deaths that were told. */
  readonly #told = new Set<NodeId>()
  readonly #spools = new Map<NodeId, string>()
  readonly #respooled: ((node: NodeId) => void)[] = []
  #lookedBoot: number
  #timer: Timer
  #isStopped = false

  constructor(options: AbsenceOptions, deps: ClusterDeps) {
    this.#options = options
    this.#deps = deps
    this.#lookMs = options.patience.confirmedMs / LOOKS_TO_CONFIRM
    this.#lookedBoot = deps.clock.bootMs()
    options.calls.answer(TOPIC, async (value) => {
      const node = typeof value === 'string' ? parseNodeId(value) : null
      const seen = node === null ? undefined : this.#seen.get(node)
      const isRefused = seen !== undefined && seen.refusedBoot !== null
      return { kind: 'json', value: isRefused ? seen.refusedMs : null }
    })
    this.#followSpools()
    options.roster.onChange(() => this.#followSpools())
    // Not at the next look: it decides again from now on, and nothing of it may be taken over.
    options.members.onChange(({ node, life }) => {
      if (life === 'alive') this.#seen.delete(node)
    })
    this.#timer = deps.clock.after(this.#lookMs, () => this.#look())
  }

  stop(): void {
    this.#isStopped = true
    this.#timer.cancel()
  }

  of(node: NodeId): Absence {
    // One that nobody knows has joined just now: it is no one that is gone.
    const standing = this.#options.roster.get(node)?.standing ?? 'member'
    if (standing !== 'member') return { kind: 'confirmed', why: 'removed' }
    const seen = this.#seen.get(node)
    if (node === this.#options.roster.self.node || seen === undefined) return { kind: 'here' }
    const { silentMs, contactBoot, refusedBoot, refusedMs } = seen
    if (refusedBoot === null) return { kind: 'silent', silentMs, contactBoot }
    const refusals = { silentMs, contactBoot, refusedBoot, refusedMs }
    if (!seen.isAgreed || refusedMs < this.#options.patience.confirmedMs) {
      return { kind: 'refused', ...refusals }
    }
    return { kind: 'confirmed', why: 'refused', ...refusals }
  }

  /** Dead for sure, or removed. */
  isConfirmed(node: NodeId): boolean {
    return this.of(node).kind === 'confirmed'
  }

  /** It spoke just now: whatever was counted begins anew. */
  heard(node: NodeId): void {
    const seen = this.#seen.get(node)
    if (seen === undefined) return
    Object.assign(seen, newSeen(this.#deps.clock.bootMs()), { isBusy: seen.isBusy })
  }

  /** True while less than half of all members, this one among them, are in sight. */
  get isMinority(): boolean {
    const peers = this.#options.roster.peers()
    const living = peers.filter(({ node }) => this.of(node).kind === 'here')
    return 2 * (living.length + 1) < peers.length + 1
  }

  /** Called after each look, with the time for which this node was awake since the last one. */
  onLook(listener: (awakeMs: number) => void): void {
    this.#listeners.push(listener)
  }

  /** A node came back with another spool: what it had is lost there. */
  onRespooled(listener: (node: NodeId) => void): void {
    this.#respooled.push(listener)
  }

  // ---- looking ----

  #look(): void {
    if (this.#isStopped) return
    this.#timer = this.#deps.clock.after(this.#lookMs, () => this.#look())
    const nowBoot = this.#deps.clock.bootMs()
    const passedMs = nowBoot - this.#lookedBoot
    this.#lookedBoot = nowBoot
    const isLate = passedMs > LATE_LOOKS * this.#lookMs
    const awakeMs = isLate ? this.#lookMs : passedMs
    const peers = this.#options.roster.peers()
    for (const node of [...this.#seen.keys()]) {
      if (!peers.some((peer) => peer.node === node)) this.#seen.delete(node)
    }
    for (const member of peers) this.#lookAt(member, awakeMs, isLate)
    this.#tell()
    for (const listener of this.#listeners) listener(awakeMs)
  }

  #lookAt(member: Member, awakeMs: number, isLate: boolean): void {
    const { node } = member
    if (this.#options.members.get(node)?.life === 'alive') return
    const seen = this.#seen.get(node) ?? newSeen(this.#lookedBoot - awakeMs)
    this.#seen.set(node, seen)
    seen.silentMs += awakeMs
    if (seen.refusedBoot !== null) seen.refusedMs += awakeMs
    // After a sleep of ours nothing that others said before it counts.
    if (isLate) seen.isAgreed = false
    seen.pause -= 1
    if (seen.isBusy || seen.pause > 0) return
    // #dial keeps what it finds, and never rejects.
    void this.#dial(member, seen)
  }

  async #dial(member: Member, seen: Seen): Promise<void> {
    seen.isBusy = true
    const answers = await Promise.all(addressesOf(member).map((address) => this.#knock(address)))
    const isRefused = answers.length > 0 && answers.every((answer) => answer)
    const nowBoot = this.#deps.clock.bootMs()
    if (isRefused) seen.refusedBoot ??= nowBoot
    else Object.assign(seen, { refusedBoot: null, refusedMs: 0, isAgreed: false })
    const { confirmedMs } = this.#options.patience
    const isDue = isRefused && seen.refusedMs >= confirmedMs - this.#lookMs
    if (isDue) seen.isAgreed = await this.#isAgreed(member.node)
    seen.pause = isRefused ? 1 : LOOKS_IF_SILENT
    seen.isBusy = false
  }

  /** True: the machine says that nobody listens there. */
  async #knock(address: PeerAddress): Promise<boolean> {
    try {
      const open = { received: () => {}, drained: () => {}, closed: () => {} }
      await this.#deps.network.dial(
        address,
        (stream) => {
          stream.terminate()
          return open
        },
        DIAL_MS_MAX,
      )
      return false
    } catch (error) {
      return error instanceof UnreachableError && error.isRefused
    }
  }

  /** Whether every other living member has been refused as long as a confirmation takes. */
  async #isAgreed(dead: NodeId): Promise<boolean> {
    const { roster, members, calls, patience } = this.#options
    const living = roster
      .peers()
      .filter(({ node }) => node !== dead && (members.get(node)?.life ?? 'dead') !== 'dead')
    const answers = await Promise.all(
      living.map(({ node }) => calls.ask(node, TOPIC, dead).catch(() => null)),
    )
    // Nodes look at slightly different times.
    const leastMs = patience.confirmedMs - 2 * this.#lookMs
    return answers.every((answer) => typeof answer === 'number' && answer >= leastMs)
  }

  #tell(): void {
    const { roster } = this.#options
    for (const node of [...this.#told]) if (!this.isConfirmed(node)) this.#told.delete(node)
    for (const { node, name } of roster.peers()) {
      const absence = this.of(node)
      if (absence.kind !== 'confirmed' || this.#told.has(node)) continue
      this.#told.add(node)
      this.#deps.observer.emit('node.confirmedDead', { peer: node, name, why: absence.why })
    }
  }

  // ---- spools ----

  #followSpools(): void {
    for (const { node, name, spool } of this.#options.roster.peers()) {
      if (spool === undefined) continue
      const before = this.#spools.get(node)
      this.#spools.set(node, spool.id)
      if (before === undefined || before === spool.id) continue
      this.#deps.observer.emit('node.confirmedDead', { peer: node, name, why: 'respooled' })
      for (const listener of this.#respooled) listener(node)
    }
  }
}

function newSeen(contactBoot: number): Seen {
  return {
    silentMs: 0,
    contactBoot,
    refusedBoot: null,
    refusedMs: 0,
    isAgreed: false,
    isBusy: false,
    pause: 0,
  }
}

/** Where a member listens: its ports for peers, and for mail at each of its hosts. */
export function addressesOf(member: Pick<Member, 'peer' | 'smtp'>): readonly PeerAddress[] {
  return [...member.peer, ...mailAddressesOf(member)]
}

/** Its own mail address first, then the same port at the hosts of its peer addresses. */
export function mailAddressesOf({
  peer,
  smtp,
}: Pick<Member, 'peer' | 'smtp'>): readonly PeerAddress[] {
  const colon = smtp.lastIndexOf(':')
  const port = Number(smtp.slice(colon + 1))
  if (colon < 0 || !Number.isInteger(port) || port < 1 || port > 65_535) return []
  const own = smtp.slice(0, colon).replace(/^\[(.*)\]$/, '$1')
  const hosts = new Set([own, ...peer.map(({ host }) => host)].filter((host) => isIP(host) !== 0))
  return [...hosts].map((host) => ({ host, port }))
}
