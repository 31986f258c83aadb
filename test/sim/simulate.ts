/**
 * One seed: a cluster, a weather, faults and people, then peace, then the questions of the oracle.
 * Every knob is drawn from the seed, so that some seeds have much of one fault and none of another
 * (swarm testing: Groce et al., 2012).
 */
import type { SharedRows } from '../../src/store/shared.ts'
import type { Dice } from './dice.ts'
import { FaultMaker, type FaultRates } from './faults.ts'
import type { MailSetting } from './mail.ts'
import { Fabric, type Weather } from './network.ts'
import { type Mutant, type Setting, SimNode } from './node.ts'
import { Oracle } from './oracle.ts'
import { Workload, type WorkRates } from './workload.ts'
import { ofSeed, World } from './world.ts'

export type Knobs = {
  readonly nodes: number
  readonly seconds: number
  readonly weather: Weather
  readonly faults: FaultRates
  readonly work: WorkRates
  /** What a feed reads at most at once. */
  readonly batchBytes: number
  /** Of own writes, 0..1: not pushed. */
  readonly lostPushes: number
}

export type Options = {
  readonly isTold?: boolean
  /** Changes what was drawn: for histories and mutants. */
  readonly tune?: (knobs: Knobs) => Knobs
  readonly mutant?: Mutant
  /** Nodes take and deliver mail too. */
  readonly mail?: (sim: Simulation) => MailSetting
  /** Held mail leaves for the queue of a node. Left out: the workload looks at it. */
  readonly onReleased?: (node: SimNode, copy: string) => void
}

export type Ended = {
  readonly hash: string
  readonly seen: ReadonlyMap<string, number>
  readonly events: number
  readonly writes: number
  readonly story: readonly string[]
}

/** Time that a healed cluster has to agree: redials, retransmissions, and two digests. */
const HEAL_MS_MAX = 60_000
/** Time that a claim has to take effect: its holders are waited for so long. */
const CLAIM_MS_MAX = 120_000
/** Words of every setting, author and mail of a simulation. */
/** None shorter than six octets: ciphertext has any four by chance, and some seeds have them. */
const SECRETS = ['{"v":"', 'setting', '"ruiz"', 'example.com', 'offer of gold']
const BATCH_BYTES = 1_000_000
/** How far ahead a clock may have been. */
const AHEAD_MS = 240_000

/** Runs one seed. @throws ViolationError, whose message begins with SIM_SEED */
export function simulate(seed: number, options: Options = {}): Ended {
  return ofSeed(seed, () => simulated(seed, options))
}

function simulated(seed: number, options: Options): Ended {
  const sim = new Simulation(seed, options)
  try {
    sim.live()
    sim.rest()
    return sim.ended()
  } catch (error) {
    if (error instanceof Error) error.cause = sim.world.story
    throw error
  } finally {
    sim.close()
  }
}

export class Simulation {
  readonly world: World
  readonly fabric: Fabric
  readonly oracle: Oracle
  readonly knobs: Knobs
  readonly nodes: SimNode[] = []
  readonly setting: Setting
  readonly dice: Dice
  readonly work: Workload
  readonly faults: FaultMaker

  constructor(seed: number, options: Options = {}) {
    this.world = new World(seed, options.isTold ?? false)
    this.dice = this.world.dice.split('knobs')
    const drawn = drawKnobs(this.dice)
    this.knobs = options.tune?.(drawn) ?? drawn
    this.fabric = new Fabric(this.world, this.knobs.weather)
    this.fabric.tap = (bytes) => this.#overhear(bytes)
    this.oracle = new Oracle(this.world, this.knobs.faults.clocks)
    this.setting = {
      world: this.world,
      fabric: this.fabric,
      oracle: this.oracle,
      mutant: options.mutant ?? {},
      batchBytes: this.knobs.batchBytes,
      lostPushes: this.knobs.lostPushes,
      nodeOf: (id) => this.nodes.find((node) => node.id === id && !node.isTwin) ?? null,
      nodeOfWriter: new Map(),
      onReleased: options.onReleased ?? ((node, copy) => this.work.released(node, copy)),
      ...(options.mail === undefined ? {} : { mail: options.mail(this) }),
    }
    this.work = new Workload(this)
    this.faults = new FaultMaker(this)
    this.found(this.knobs.nodes)
  }

  /** Those that a healed cluster consists of. */
  get core(): readonly SimNode[] {
    return this.nodes.filter(({ isRemoved, isDestroyed }) => !isRemoved && !isDestroyed)
  }

  get up(): readonly SimNode[] {
    return this.nodes.filter(({ isUp, isRemoved }) => isUp && !isRemoved)
  }

  live(): void {
    this.work.begin()
    this.faults.begin()
    this.world.runFor(this.knobs.seconds * 1_000)
  }

  /** Faults end, everybody is started, and in bounded time all agree. */
  rest(): void {
    this.work.end()
    this.faults.end()
    this.fabric.healAll()
    this.setting.batchBytes = BATCH_BYTES
    this.#judgeRoster()
    this.fabric.weather = { ...this.fabric.weather, loss: 0, reset: 0, bytesPerSecond: null }
    for (const node of this.core) {
      node.disk.heal()
      this.world.act(() => node.start())
    }
    this.world.tell(() => 'everything is healed')
    this.#setClocks()
    const core = this.core.map(({ watched }) => watched)
    // Who has just started has something to say of itself.
    this.world.runFor(1_000)
    const agreedFirst = this.world.runTill(() => this.areEqual(), HEAL_MS_MAX, 500)
    const isClear = this.world.runTill(() => this.work.owed().length === 0, CLAIM_MS_MAX, 500)
    // What left at last wrote a row.
    const agreed = agreedFirst && this.world.runTill(() => this.areEqual(), HEAL_MS_MAX, 500)
    this.world.act(() => {
      if (!isClear) this.world.violate(`released, and never leaves: ${this.work.owed()[0]}`)
    })
    this.world.act(() => {
      if (!agreed)
        this.world.violate(`not equal ${HEAL_MS_MAX} ms after healing: ${this.#differ()}`)
    })
    this.world.act(() => {
      if (this.oracle.agree(core) > 0) this.world.sometimes('conflicting edit')
      for (const node of this.core) this.#checkRest(node)
      this.work.checkRest(core)
    })
  }

  /** Digests and vectors, over all of the core. */
  areEqual(): boolean {
    const [first, ...others] = this.core
    if (first === undefined || this.core.some(({ isUp }) => !isUp)) return false
    if (this.core.some(({ rows }) => rows.parked > 0)) return false
    const root = first.rows.digest()?.root
    const vector = vectorText(first.rows)
    return others.every(({ rows }) => rows.digest()?.root === root && vectorText(rows) === vector)
  }

  ended(): Ended {
    const { hash, seen, events, story } = this.world
    const roots = this.core.map(({ rows }) => rows.digest()?.root ?? '')
    return { hash: `${hash}-${roots[0]}`, seen, events, writes: this.oracle.writes, story }
  }

  close(): void {
    for (const node of this.nodes) node.close()
  }

  /** A further machine, not started. */
  addNode(from?: SimNode): SimNode {
    const number = this.nodes.length + 1
    const isWild = this.knobs.faults.clocks
    const time = {
      skewMs: isWild ? Math.round(this.dice.between(-40_000, 40_000)) : this.dice.below(20),
      driftPpm: isWild ? this.dice.between(-200, 200) : 0,
    }
    const node = new SimNode(
      this.setting,
      from === undefined ? `mx${number}` : `${from.name}'${number}`,
      {
        host: `10.0.0.${number}`,
        time: from === undefined ? time : { ...from.time },
        ...(from === undefined ? {} : { from }),
      },
    )
    this.nodes.push(node)
    return node
  }

  /** A cluster of so many nodes; 0: nobody yet. */
  found(nodes: number): void {
    if (nodes === 0) return
    const founder = this.addNode()
    this.world.act(() => founder.start())
    // Whoever takes mail reads its spool before its ports are open.
    this.world.runTill(() => founder.run?.cluster !== null, 10_000, 1)
    for (let count = 1; count < nodes; count += 1) this.#settle(founder)
  }

  /** A member from the beginning. */
  #settle(founder: SimNode): void {
    const node = this.addNode()
    this.world.act(() => {
      founder.cluster.roster.admit(node.applicant, 'ruiz')
      node.settle(founder)
      node.start()
    })
  }

  /** Clocks that were wrong are right again, and far enough that nothing has to wait. */
  #setClocks(): void {
    if (!this.knobs.faults.clocks) return
    for (const { time } of this.nodes) time.skewMs = this.faults.highestMs + AHEAD_MS
  }

  /**
   * A removal that only lost disks knew of did not happen. Who was let in by a node that was
   * removed before others heard of it stays outside: the largest part of those who know each
   * other, or can prove who they are, is the cluster.
   */
  #judgeRoster(): void {
    const knows = (node: SimNode, key: string): boolean => node.memory.cells.has(`member/${key}`)
    for (const node of this.nodes) {
      if (node.isTwin || node.isDestroyed || !node.isRemoved) continue
      node.isRemoved = this.nodes.some(
        (other) =>
          other.id !== node.id && !other.isDestroyed && knows(other, `${node.id}/standing`),
      )
    }
    const isProven = ({ issuer }: SimNode): boolean =>
      issuer === null || (!issuer.isRemoved && isProven(issuer))
    const parts: SimNode[][] = []
    for (const node of this.core) {
      const isNear = (other: SimNode): boolean => {
        const known = [knows(node, other.id), knows(other, node.id)]
        if (known.includes(false) && !(isProven(node) && isProven(other))) return false
        return known.includes(true)
      }
      const near = parts.filter((part) => part.some(isNear))
      for (const part of near) parts.splice(parts.indexOf(part), 1)
      parts.push([node, ...near.flat()])
    }
    const largest = parts.reduce((most, part) => (part.length > most.length ? part : most), [])
    for (const node of this.core) if (!largest.includes(node)) node.isRemoved = true
  }

  /** Invariant 18: nothing of a mail, an address or a setting is readable on the wire. */
  #overhear(bytes: Uint8Array): void {
    const heard = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
    const word = SECRETS.find((secret) => heard.includes(secret))
    if (word !== undefined) this.world.violate(`"${word}" goes over the wire in plaintext`)
  }

  #checkRest(node: SimNode): void {
    const repairs = node.run?.cluster?.sync.repairs ?? 0
    if (repairs > 0) {
      this.world.violate(`a digest repaired ${repairs} rows at ${node.name}: the feed lost them`)
    }
  }

  #differ(): string {
    return this.core
      .map(({ name, rows }) => `${name} ${rows.digest()?.root} ${vectorText(rows)}`)
      .join('; ')
  }
}

function vectorText(rows: SharedRows): string {
  return [...rows.vector()]
    .map(([writer, seq]) => `${writer}:${seq}`)
    .sort()
    .join(' ')
}

function drawKnobs(dice: Dice): Knobs {
  /** Present in this part of the seeds, else 0. */
  const some = (part: number, least: number, most: number): number =>
    dice.chance(part) ? dice.between(least, most) : 0
  return {
    nodes: 2 + dice.below(4),
    seconds: 30 + dice.below(50),
    weather: {
      latencyMs: dice.pick([0.3, 2, 20, 120]),
      jitterMs: dice.pick([0, 1, 10, 80]),
      loss: some(0.5, 0.01, 0.3),
      duplicate: some(0.5, 0.05, 0.5),
      reset: some(0.4, 0.001, 0.03),
      pieces: dice.pick(['whole', 'whole', 'split', 'crumbs']),
      bytesPerSecond: dice.chance(0.15) ? dice.pick([8_000, 64_000, 1_000_000]) : null,
    },
    faults: {
      everyMs: dice.pick([2_000, 5_000, 12_000]),
      cuts: some(0.7, 0.3, 1),
      clogs: some(0.4, 0.2, 1),
      crashes: some(0.6, 0.2, 1),
      stalls: some(0.3, 0.2, 1),
      disks: some(0.4, 0.2, 1),
      rollbacks: some(0.35, 0.1, 0.6),
      clones: some(0.1, 0.1, 0.2),
      lapses: some(0.3, 0.1, 0.3),
      losses: some(0.1, 0.05, 0.1),
      clocks: dice.chance(0.3),
    },
    work: {
      everyMs: dice.pick([150, 400, 900]),
      rows: dice.pick([3, 8, 30]),
      stale: some(0.5, 0.05, 0.4),
      held: some(0.6, 0.1, 0.5),
      future: some(0.3, 0.02, 0.1),
      roster: some(0.3, 0.01, 0.05),
      bursts: some(0.15, 0.02, 0.05),
    },
    batchBytes: dice.pick([300, 2_000, BATCH_BYTES]),
    lostPushes: some(0.4, 0.1, 1),
  }
}
