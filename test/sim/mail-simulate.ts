/**
 * One seed of a cluster that takes mail: senders, next hops, disks and faults, then peace, then
 * the questions of the ledger. Every knob is drawn from the seed (swarm testing).
 */
import type { MessageId, NodeId } from '../../src/base/ids.ts'
import { RECORD, readIndex } from '../../src/store/records.ts'
import { Dice } from './dice.ts'
import { type HopMood, KIND_HOP, NextHops } from './hop.ts'
import { Ledger, type Sums } from './ledger.ts'
import type { MailSetting } from './mail.ts'
import { type MailFaultRates, MailFaults, NO_FAULTS } from './mail-faults.ts'
import { MailRules } from './mail-rules.ts'
import { CALM, type Weather } from './network.ts'
import type { Mutant, SimNode } from './node.ts'
import { CALM_SENDERS, type SenderRates, Senders } from './senders.ts'
import { Simulation } from './simulate.ts'
import type { Pace } from './spool-disk.ts'
import { QUICK } from './spool-disk.ts'
import { ofSeed, type World } from './world.ts'

export type MailKnobs = {
  readonly nodes: number
  readonly seconds: number
  /** Of the rules for a dead node's mail. */
  readonly timeScale: number
  readonly weather: Weather
  readonly pace: Pace
  readonly isScattered: boolean
  readonly hop: HopMood
  readonly senders: SenderRates
  readonly faults: MailFaultRates
  readonly settings: MailSetting['settings']
  readonly inspectMs: number
}

export type MailOptions = {
  readonly isTold?: boolean
  readonly tune?: (knobs: MailKnobs) => MailKnobs
  readonly mutant?: Mutant
  /** Held mail leaves for the queue of a node. */
  readonly onReleased?: (node: SimNode, copy: string) => void
}

export type MailEnded = Sums & {
  readonly hash: string
  readonly events: number
  readonly seen: ReadonlyMap<string, number>
  readonly story: readonly string[]
}

/** A disk that lost what was on it: all of it, or what it had got since an instant. */
type Loss = { readonly node: SimNode; readonly fromMs: number; readonly atMs: number }

const LOOK_MS = 250
/** Time for what waits for the longest of the long times, and for two retries. */
const REST_MS = 300_000

/** Runs one seed. @throws ViolationError, whose message begins with SIM_SEED */
export function simulateMail(seed: number, options: MailOptions = {}): MailEnded {
  return ofSeed(seed, () => simulated(seed, options))
}

function simulated(seed: number, options: MailOptions): MailEnded {
  const sim = new MailSimulation(seed, options)
  try {
    sim.live()
    return sim.rest()
  } catch (error) {
    if (error instanceof Error) error.cause = sim.world.story
    throw error
  } finally {
    sim.close()
  }
}

export class MailSimulation {
  readonly cluster: Simulation
  readonly world: World
  readonly knobs: MailKnobs
  readonly ledger: Ledger
  readonly hops: NextHops
  readonly senders: Senders
  readonly faults: MailFaults
  readonly rules: MailRules
  readonly #losses: Loss[] = []
  /** By pair: since when there is a link both ways, and when there was one last. */
  readonly #contacts = new Map<string, { sinceMs: number | null; lastMs: number }>()

  constructor(seed: number, options: MailOptions = {}) {
    const drawn = drawMailKnobs(new Dice(seed, 'mail knobs'))
    const knobs = options.tune?.(drawn) ?? drawn
    this.knobs = knobs
    const clocks = knobs.faults.clocks > 0
    let made: Parts | null = null
    const mutant = options.mutant
    this.cluster = new Simulation(seed, {
      isTold: options.isTold ?? false,
      ...(mutant === undefined ? {} : { mutant }),
      ...(options.onReleased === undefined ? {} : { onReleased: options.onReleased }),
      tune: (plain) => ({
        ...plain,
        nodes: 0,
        batchBytes: 1_000_000,
        lostPushes: 0,
        weather: knobs.weather,
        faults: { ...plain.faults, clocks },
      }),
      mail: ({ world }) => {
        made = this.#parts(world)
        return made.setting
      },
    })
    if (made === null) throw new Error('a simulation has mail')
    const { ledger, hops } = made as Parts
    this.world = this.cluster.world
    this.ledger = ledger
    this.hops = hops
    const dice = this.world.dice.split('mail')
    this.senders = new Senders(dice.split('senders'), knobs.senders, {
      world: this.world,
      ledger,
      doors: () => this.doors,
      copiesOf: (mid) => this.copiesOf(mid),
    })
    this.faults = new MailFaults(this, dice.split('faults'))
    this.rules = new MailRules({
      world: this.world,
      ledger,
      nodes: () => this.nodes,
      timeScale: knobs.timeScale,
      isolation: knobs.settings['cluster.isolation'] ?? 'deliver',
      hasWhole,
      lastContactMs: (one, two) => this.lastContactMs(one, two),
      hasLost: (node) => this.#losses.some((loss) => loss.node === node),
    })
    ledger.onArrived = (arrived) => this.rules.arrived(arrived)
    this.cluster.found(knobs.nodes)
    for (const node of this.nodes) {
      node.spool.onRecord = (record) => this.rules.written(node, record)
      node.spool.pace = knobs.pace
      node.spool.isScattered = knobs.isScattered
    }
    this.#look()
  }

  get nodes(): readonly SimNode[] {
    return this.cluster.nodes
  }

  /** Those that clients reach and that let them in. */
  get doors(): readonly SimNode[] {
    return this.cluster.up.filter(
      ({ id, run }) =>
        run?.mail?.isOpen === true && run.cluster?.roster.get(id)?.drain === 'accepting',
    )
  }

  live(): void {
    this.senders.begin()
    this.faults.begin()
    this.world.runFor(this.knobs.seconds * 1_000)
  }

  /** Faults end, everybody is started, and in bounded time all that was promised has come about. */
  rest(): Sums & MailEnded {
    const { world, cluster } = this
    this.senders.end()
    this.faults.end()
    cluster.fabric.healAll()
    cluster.fabric.weather = { ...cluster.fabric.weather, loss: 0, reset: 0, bytesPerSecond: null }
    this.hops.isDown = false
    this.hops.unreached.clear()
    this.hops.mood = { ...this.hops.mood, hangsUp: 0, busy: 0, slow: 0 }
    for (const node of cluster.core) {
      node.spool.isFull = false
      node.spool.free = 0.5
      node.spool.failingSyncs = 0
      world.act(() => node.start())
    }
    world.tell(() => 'everything is healed')
    this.faults.removeLost()
    const restMs = REST_MS + 1_800_000 / this.knobs.timeScale
    let isDone = world.runTill(() => this.isAtRest(), restMs)
    if (!isDone) {
      // A copy that its new owner does not know of is asked about when a link opens.
      world.sometimes('copy forgotten at the next link only')
      for (const { run } of cluster.core) {
        for (const link of run?.cluster?.links.all() ?? []) world.act(() => link.close('again'))
      }
      isDone = world.runTill(() => this.isAtRest(), REST_MS)
    }
    world.act(() => {
      const sums = this.ledger.settle((mid, place) => this.isHeld(mid, place))
      if (!isDone) world.violate(`no rest: ${this.unrest().join('; ')}`)
      return sums
    })
    const { hash, events, seen, story } = world
    return { ...this.ledger.sums, hash, events, seen, story }
  }

  isAtRest(): boolean {
    return this.senders.open === 0 && this.unrest().length === 0
  }

  /** What is still to be done, in words. */
  unrest(): readonly string[] {
    const { core } = this.cluster
    const missing = this.ledger.missing((mid, place) => this.isHeld(mid, place))
    return [
      ...(this.senders.open > 0 ? [`${this.senders.open} senders try on`] : []),
      ...(missing.length > 0 ? [`${missing.length} missing, first ${missing[0]}`] : []),
      ...core.flatMap((node) => {
        const { name, run } = node
        const queue = run?.mail?.queue
        if (queue === undefined) return [`${name} is not up`]
        const own = [...queue.messages()]
        // A disk that went back shows copies of what is done and forgotten everywhere else.
        const copies = this.hasGoneBack(node) ? [] : [...queue.copies()]
        const owed = [...queue.owed()]
        return [
          ...(own.length > 0 ? [`${name} owns ${own.length}, first ${own[0]?.id}`] : []),
          ...(copies.length > 0 ? [`${name} keeps ${copies.length}, first ${copies[0]?.id}`] : []),
          ...(owed.length > 0 ? [`${name} owes ${owed.length}, first ${owed[0]?.id}`] : []),
        ]
      }),
    ]
  }

  isHeld(_mid: MessageId, _place: number): boolean {
    return false
  }

  /** A machine more, let in by a token of `issuer`; it is up when this returns. */
  join(issuer: SimNode): SimNode {
    const { world, cluster } = this
    const joiner = cluster.addNode()
    const { token } = world.act(() => issuer.cluster.invitations.invite({}, 'ruiz'))
    world.wait(joiner.join(token, issuer))
    world.act(() => joiner.start())
    world.runTill(() => joiner.run?.mail?.isOpen === true, 30_000)
    return joiner
  }

  /** Disks that have a message whole. */
  copiesOf(mid: MessageId): number {
    return this.nodes.filter((node) => !node.isDestroyed && hasWhole(node, mid)).length
  }

  /** What the disk of a node had got since `fromMs` is gone. */
  lost(node: SimNode, fromMs = Number.NEGATIVE_INFINITY): void {
    this.#losses.push({ node, fromMs, atMs: this.world.nowMs })
  }

  /** Some disk went back from after `atMs` to before it. */
  wentBackPast(atMs: number): boolean {
    return this.#losses.some(
      ({ fromMs, atMs: lostMs }) => Number.isFinite(fromMs) && fromMs <= atMs && atMs <= lostMs,
    )
  }

  /** Its disk went back to an image of before, at any time. */
  hasGoneBack(of: SimNode): boolean {
    return this.#losses.some(({ node, fromMs }) => node === of && Number.isFinite(fromMs))
  }

  /** Its process stands still: it hears nobody and does nothing, for people neither. */
  isStopped(id: NodeId): boolean {
    const process = this.cluster.setting.nodeOf(id)?.run?.process
    return process !== undefined && process.stalledUntilMs > this.world.nowMs
  }

  /** How long two nodes have been in contact without a break, ms; 0: they are not. */
  contactMs(one: NodeId, two: NodeId): number {
    const sinceMs = this.#contacts.get(pairOf(one, two))?.sinceMs ?? null
    return sinceMs === null ? 0 : this.world.nowMs - sinceMs
  }

  /** When they had a link last, ms; never: -1. */
  lastContactMs(one: NodeId, two: NodeId): number {
    this.#lookAt(one, two)
    return this.#contacts.get(pairOf(one, two))?.lastMs ?? -1
  }

  close(): void {
    this.cluster.close()
  }

  #parts(world: World): Parts {
    const { knobs } = this
    const dice = world.dice.split('mail')
    const node = (id: NodeId): SimNode | null => this.cluster.setting.nodeOf(id)
    const durable = (id: NodeId, mid: MessageId) => node(id)?.spool.durable(mid) ?? []
    const ledger = new Ledger(world, {
      hasCommit: (id, mid) => durable(id, mid).some(({ type }) => type === RECORD.commit),
      hasTry: (id, mid) => durable(id, mid).some(({ type }) => type === RECORD.try),
      hasDone: (id, mid, index) =>
        durable(id, mid).some(({ type, text }) => {
          if (type === RECORD.done) return (JSON.parse(text) as { r: number[] }).r.includes(index)
          if (type !== RECORD.commit) return false
          const commit = JSON.parse(text) as { recipients: { state: string }[] }
          return commit.recipients[index]?.state === 'done'
        }),
      copiesOf: (mid) => this.copiesOf(mid),
      contactMs: (one, two) => this.contactMs(one, two),
      hasGoneBack: (id) => this.nodes.some((one) => one.id === id && this.hasGoneBack(one)),
      hasLost: (id) => this.#losses.some((loss) => loss.node.id === id),
      wentBackPast: (atMs) => this.wentBackPast(atMs),
      lossesSince: (atMs) =>
        this.#losses.filter((loss) => loss.fromMs <= atMs && atMs <= loss.atMs).length,
    })
    const hops = new NextHops(world, dice.split('hops'), ledger, knobs.hop)
    const { settings, timeScale, inspectMs } = knobs
    // One may open and break between two looks.
    const onLink = (): void => void world.after(0, () => this.#lookAll())
    const onCopy: MailSetting['onCopy'] = (mid, by) => this.rules.believed(mid, by)
    const setting = { world, ledger, hops, settings, timeScale, inspectMs, onLink, onCopy }
    return { ledger, hops, setting }
  }

  #passes(one: NodeId, two: NodeId): boolean {
    const { fabric, setting } = this.cluster
    const [from, to] = [setting.nodeOf(one)?.host, setting.nodeOf(two)?.host]
    if (from === undefined || to === undefined) return false
    return fabric.passes(from, to, 'tcp') && fabric.passes(to, from, 'tcp')
  }

  #look(): void {
    this.#lookAll()
    this.world.after(LOOK_MS, () => this.#look())
  }

  #lookAll(): void {
    for (const [at, one] of this.nodes.entries()) {
      for (const two of this.nodes.slice(at + 1)) this.#lookAt(one.id, two.id)
    }
  }

  #lookAt(one: NodeId, two: NodeId): void {
    const { nowMs } = this.world
    const link = (from: NodeId, to: NodeId) =>
      this.cluster.setting.nodeOf(from)?.run?.cluster?.links.get(to) ?? null
    const isLinked = link(one, two) !== null && link(two, one) !== null
    const pair = pairOf(one, two)
    const known = this.#contacts.get(pair) ?? { sinceMs: null, lastMs: -1 }
    known.sinceMs = isLinked ? (known.sinceMs ?? nowMs) : null
    // Who is stopped or cut off keeps its links for a while, and hears nothing.
    const isHeard = this.#passes(one, two) && ![one, two].some((id) => this.isStopped(id))
    if (known.sinceMs !== null)
      known.lastMs = isHeard ? nowMs : Math.max(known.lastMs, known.sinceMs)
    this.#contacts.set(pair, known)
  }
}

type Parts = {
  readonly ledger: Ledger
  readonly hops: NextHops
  readonly setting: MailSetting
}

/** A COMMIT is on the platter, and nothing behind it that takes it back. */
function hasWhole({ spool }: SimNode, mid: MessageId): boolean {
  const whole = new Set<number>()
  for (const { type, index } of spool.durable(mid)) {
    const { body, place } = readIndex(index)
    if (type === RECORD.commit) whole.add(body)
    else if (type === RECORD.discard) whole.clear()
    else if (type === RECORD.abort && place === 1) whole.delete(body)
  }
  return whole.size > 0
}

function pairOf(one: NodeId, two: NodeId): string {
  return one < two ? `${one} ${two}` : `${two} ${one}`
}

/** Nobody does anything by himself, nothing fails: for histories. */
export function calmMail(knobs: MailKnobs): MailKnobs {
  return {
    ...knobs,
    nodes: 3,
    timeScale: 1,
    weather: CALM,
    pace: QUICK,
    isScattered: false,
    hop: KIND_HOP,
    senders: CALM_SENDERS,
    faults: NO_FAULTS,
    inspectMs: 5,
  }
}

function drawMailKnobs(dice: Dice): MailKnobs {
  /** Present in this part of the seeds, else 0. */
  const some = (part: number, least: number, most: number): number =>
    dice.chance(part) ? dice.between(least, most) : 0
  const timeScale = dice.pick([4, 8, 12])
  return {
    nodes: dice.pick([2, 2, 3, 3, 3, 4]),
    seconds: 60 + dice.below(180),
    timeScale,
    weather: {
      latencyMs: dice.pick([0.3, 2, 20, 80]),
      jitterMs: dice.pick([0, 1, 10, 40]),
      loss: some(0.3, 0.01, 0.15),
      duplicate: some(0.3, 0.05, 0.3),
      reset: some(0.3, 0.0005, 0.01),
      pieces: dice.pick(['whole', 'whole', 'split']),
      bytesPerSecond: dice.chance(0.1) ? dice.pick([200_000, 1_000_000]) : null,
    },
    pace: {
      writeMs: dice.pick([0.05, 0.2]),
      syncMs: dice.pick([0.4, 2, 8]),
      stalls: some(0.3, 0.001, 0.02),
    },
    isScattered: dice.chance(0.3),
    hop: {
      latencyMs: dice.pick([3, 20]),
      busy: some(0.6, 0.05, 0.5),
      hangsUp: some(0.5, 0.01, 0.1),
      slow: some(0.2, 0.02, 0.1),
    },
    senders: {
      everyMs: dice.pick([400, 1_000, 2_500]),
      large: some(0.4, 0.02, 0.1),
      refused: some(0.4, 0.02, 0.1),
      held: 0,
      lostReplies: some(0.4, 0.01, 0.1),
    },
    faults: {
      everyMs: dice.pick([6_000, 12_000, 25_000]),
      kills: some(0.7, 0.2, 1),
      powerCuts: some(0.6, 0.2, 1),
      allCuts: some(0.15, 0.05, 0.2),
      stalls: some(0.3, 0.1, 0.5),
      suspends: some(0.15, 0.1, 0.3),
      cuts: some(0.6, 0.2, 1),
      drops: some(0.4, 0.2, 1),
      hops: some(0.7, 0.3, 1),
      fulls: some(0.25, 0.1, 0.4),
      syncs: some(0.2, 0.05, 0.3),
      clocks: some(0.2, 0.1, 0.3),
      drains: some(0.25, 0.1, 0.4),
      /** At most one of these in a seed: two disks that are lost are more than two copies bear. */
      loss: dice.pick(['none', 'destroyed', 'destroyed', 'wiped', 'rolled back']),
    },
    settings: {
      'queue.first': 3,
      'queue.longest': 20,
      'queue.inDoubt': 10,
      'cluster.copies': dice.pick(['prefer', 'prefer', 'require']),
      'cluster.isolation': dice.pick(['deliver', 'hold']),
    },
    inspectMs: dice.pick([1, 30, 400]),
  }
}
