/**
 * Held mail in a cluster whose nodes die: sealed bodies on two nodes, clicks everywhere, owners that
 * are killed, cut off or lost for good, disks that go back, mail that expires. A recipient gets it
 * once, but for the causes that held-rules.ts names; and nothing is lost while a node with its body
 * lives.
 */
import type { HeldDetail } from '../../src/admin/contract.ts'
import { RefusalError, StoreError } from '../../src/base/errors.ts'
import type { MessageId } from '../../src/base/ids.ts'
import { patienceOf } from '../../src/cluster/patience.ts'
import type { Dice } from './dice.ts'
import { type Click, KEEP_MS, RECIPIENTS } from './held.ts'
import { HeldRules } from './held-rules.ts'
import { NO_FAULTS } from './mail-faults.ts'
import { type MailKnobs, MailSimulation } from './mail-simulate.ts'
import { CALM } from './network.ts'
import type { SimNode } from './node.ts'
import { ofSeed } from './world.ts'

export type HeldEnded = {
  readonly hash: string
  readonly held: number
  readonly released: number
  /** Twice for a reason that the operator was told of. */
  readonly doubled: number
  readonly seen: ReadonlyMap<string, number>
}

const EVERY_MS = 700
/** Of the clicks, by an operator who was told that it may arrive twice. */
const ANYWAY = 0.05
/** Of the releases of what others have too: the node is killed before its rows tell of its queue. */
const KILLED = 0.3
const KILLED_MS_MAX = 30
/** Of the mail: it expires while it is asked for. The mean time that it is kept, ms. */
const SHORT = 0.3
const SHORT_MS = 40_000
/** At rest everybody clicks in turn; a claim waits for a silent holder no longer than this. */
const ROUND_MS = 60_000
const ROUNDS = 12

/** Runs one seed. @throws ViolationError, whose message begins with SIM_SEED */
export function simulateHeld(
  seed: number,
  tune = (knobs: MailKnobs): MailKnobs => knobs,
): HeldEnded {
  return ofSeed(seed, () => simulated(seed, tune))
}

function simulated(seed: number, tune: (knobs: MailKnobs) => MailKnobs): HeldEnded {
  const sim = new MailSimulation(seed, {
    tune: (knobs) => tune(heldKnobs(knobs)),
    onReleased: (node, copy) => work.left(node, copy),
  })
  const work = new HeldWork(sim, sim.world.dice.split('held'))
  try {
    work.begin()
    sim.live()
    work.end()
    sim.rest()
    return work.rest()
  } finally {
    sim.close()
  }
}

/** The mail of senders is not what this is about. */
function heldKnobs(knobs: MailKnobs): MailKnobs {
  const { faults } = knobs
  return {
    ...knobs,
    // A silence of some seconds comes before the first refusal, whatever the scale: with shorter
    // times nobody would be known to have died with nothing untold.
    timeScale: 1 + knobs.timeScale / 4,
    weather: { ...CALM, latencyMs: knobs.weather.latencyMs },
    senders: { ...knobs.senders, everyMs: 20_000 },
    faults: {
      ...NO_FAULTS,
      everyMs: faults.everyMs * 2,
      kills: faults.kills,
      powerCuts: faults.powerCuts,
      cuts: faults.cuts,
      loss: faults.loss === 'wiped' ? 'rolled back' : faults.loss,
    },
  }
}

class HeldWork {
  readonly #sim: MailSimulation
  readonly #dice: Dice
  readonly #rules: HeldRules
  readonly #known: MessageId[] = []
  #isOver = false

  constructor(sim: MailSimulation, dice: Dice) {
    this.#sim = sim
    this.#dice = dice
    this.#rules = new HeldRules(sim)
  }

  begin(): void {
    this.#sim.world.after(this.#dice.exponential(EVERY_MS), () => {
      if (this.#isOver) return
      this.#act()
      this.begin()
    })
  }

  end(): void {
    this.#isOver = true
  }

  /** A copy leaves for the queue of a node. */
  left(node: SimNode, copy: string): void {
    this.#rules.left(node, copy)
    this.#perhapsKill(node, copy.split(' ')[0] as MessageId)
  }

  /** Before it wrote down that its queue has a mail, or before others have read that. */
  #perhapsKill(node: SimNode, id: MessageId): void {
    const { world, knobs, cluster } = this.#sim
    const { process } = node.run ?? {}
    const others = cluster.core.filter((one) => one !== node)
    const isElsewhere = others.some(({ bodies }) => bodies.kept.has(id))
    const isAlone = others.some(({ isUp }) => !isUp)
    if (this.#isOver || !isElsewhere || isAlone || !this.#dice.chance(KILLED)) return
    world.after(this.#dice.between(0, KILLED_MS_MAX), () => {
      if (process === undefined || node.run?.process !== process || this.#isOver) return
      world.sometimes('owner killed behind its queue')
      world.act(() => node.crash(false))
      const { adoptConfirmedMs } = patienceOf(knobs.timeScale)
      // Mostly so long that another one takes its mail over.
      const part = this.#dice.chance(0.3)
        ? this.#dice.between(0.01, 1)
        : this.#dice.between(1.1, 2.5)
      const ms = part * adoptConfirmedMs
      world.after(ms, () => {
        if (!this.#isOver) node.start()
      })
    })
  }

  /** All that some living node has the body of can be released from everywhere, and is. */
  rest(): HeldEnded {
    const { world, cluster } = this.#sim
    const kept = this.#known.filter((id) => cluster.core.some(({ bodies }) => bodies.kept.has(id)))
    const open = (): readonly string[] => kept.flatMap((id) => this.#rules.open(id))
    let isDone = false
    // A click that waits for an owner is a question again when that one is removed.
    for (let round = 0; round < ROUNDS && !isDone; round += 1) {
      const node = cluster.core[round % cluster.core.length]
      for (const id of kept) {
        if (node !== undefined && this.#rules.open(id).length > 0) this.#click(node, id, PLAIN)
      }
      isDone = world.runTill(() => open().length === 0, ROUND_MS, 500)
    }
    world.act(() => {
      if (!isDone) world.violate(`held mail is lost or stuck: ${open().slice(0, 3).join('; ')}`)
    })
    this.#rules.settle(this.#known)
    const { hash, seen } = world
    const { count: released, doubled } = this.#rules
    return { hash, seen, held: this.#known.length, released, doubled }
  }

  #act(): void {
    const { doors } = this.#sim
    if (doors.length === 0) return
    const node = this.#dice.pick(doors)
    if (this.#known.length === 0 || this.#dice.chance(0.3)) return this.#hold(node)
    const id = this.#dice.pick(this.#known)
    const kind = this.#dice.chance(0.7) ? 'release' : 'delete'
    const recipient = this.#dice.pick([null, ...RECIPIENTS])
    this.#click(node, id, { kind, recipient, anyway: this.#dice.chance(ANYWAY) })
  }

  #hold(node: SimNode): void {
    const { world } = this.#sim
    const { run } = node
    if (run === null) return
    const keepMs = this.#dice.chance(SHORT) ? this.#dice.exponential(SHORT_MS) : KEEP_MS
    const id = world.act(() => run.held.hold(Math.round(keepMs)))
    this.#known.push(id)
    world.tell(() => `${node.name} holds ${id}`)
  }

  #click(node: SimNode, id: MessageId, click: Click): void {
    const { world } = this.#sim
    const { run } = node
    if (run === null) return
    if (click.kind === 'release' && click.anyway) this.#rules.anyway(id)
    world.tell(() => `${node.name} clicks ${click.kind} of ${id}, anyway: ${click.anyway}`)
    world.act(() => {
      const hasExpired = this.#rules.hasExpired(node, id, click.recipient)
      const shown = run.held.click(id, click)
      shown
        .then((detail) => {
          if (hasExpired) world.violate(`${node.name} takes a click for ${id}, which has expired`)
          this.#told(id, detail)
        })
        .catch((error: unknown) => {
          if (error instanceof RefusalError) world.sometimes(`click refused: ${error.code}`)
          else if (!(error instanceof StoreError)) {
            world.violate(`a click of ${node.name} failed: ${String(error)}`)
          }
        })
    })
  }

  /** What an operator is shown after his click. */
  #told(id: MessageId, detail: HeldDetail | null): void {
    const released = detail?.claims.filter(({ kind }) => kind === 'release') ?? []
    this.#rules.promised(
      id,
      released.map(({ recipient }) => recipient),
    )
  }
}

const PLAIN: Click = { kind: 'release', recipient: null, anyway: false }
