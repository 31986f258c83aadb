/**
 * The swarm of held mail: sealed bodies on two nodes, clicks everywhere, owners that die. A failure
 * prints `SIM_SEED=N`; POSTERN_SIM_SEEDS makes it shorter or longer.
 */
import { expect, setDefaultTimeout, test } from 'bun:test'
import type { MessageId } from '../../src/base/ids.ts'
import { patienceOf } from '../../src/cluster/patience.ts'
import { Taken } from '../../src/cluster/taken.ts'
import { COUNTS } from '../process/counts.ts'
import { RECIPIENTS } from './held.ts'
import { around } from './mail-calm.ts'
import { simulateHeld } from './mail-held.ts'
import { calmMail, MailSimulation } from './mail-simulate.ts'
import type { SimNode, Snapshot } from './node.ts'
import { Seen } from './seen.ts'

const SEEDS = Number(process.env['POSTERN_SIM_SEEDS'] ?? COUNTS.heldSimulations)
const ENOUGH_SEEDS = 12
const PATIENCE_MS = 3_600_000
setDefaultTimeout(120_000)

const SOMETIMES: readonly string[] = [
  'held mail has a second body',
  'held mail taken over',
  'held mail expired',
  'held mail released twice: death',
  'rolled back',
  'click refused: conflict',
]

test(
  'held mail is released once, and not lost while a node with its body lives',
  () => {
    const seen = new Seen()
    let released = 0
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      const ended = simulateHeld(seed)
      seen.add(ended.seen)
      released += ended.released
    }
    expect(released).toBeGreaterThan(SEEDS * 20)
    if (SEEDS >= ENOUGH_SEEDS) expect(seen.never(SOMETIMES)).toEqual([])
    expect(simulateHeld(1).hash).toBe(simulateHeld(1).hash)
  },
  PATIENCE_MS,
)

/** A calm cluster in which the owner of a held mail and one of the others have its body. */
type Calm = {
  readonly sim: MailSimulation
  readonly owner: SimNode
  readonly others: readonly SimNode[]
  readonly id: MessageId
  /** Somebody releases the first copy at a node. */
  readonly click: (at: SimNode) => void
}

/** Gives who released a mail in a history, in order. */
function releasedIn(
  history: (calm: Calm) => void,
  hooks: {
    /** Just before the owner holds it. */
    readonly before?: (owner: SimNode) => void
    readonly keepMs?: number
    /** `count`: how often it was released before. */
    readonly onReleased?: (node: SimNode, count: number) => void
  } = {},
): readonly string[] {
  const released: string[] = []
  const sim = new MailSimulation(1, {
    tune: calmMail,
    onReleased: (node) => {
      hooks.onReleased?.(node, released.length)
      released.push(node.name)
    },
  })
  try {
    const { world } = sim
    const [owner, ...others] = sim.nodes as [SimNode, SimNode, SimNode]
    world.runFor(20_000)
    hooks.before?.(owner)
    const id = world.act(() => owner.run?.held.hold(hooks.keepMs)) as MessageId
    const isHealed = (): boolean => others.some(({ bodies }) => bodies.kept.has(id))
    expect(world.runTill(isHealed, 60_000)).toBe(true)
    world.runFor(20_000)
    const release = { kind: 'release', recipient: RECIPIENTS[0] ?? null, anyway: false } as const
    const click = (at: SimNode): void => {
      world.act(() => at.run?.held.click(id, release).catch(() => {}))
    }
    history({ sim, owner, others, id, click })
    world.runFor(120_000)
    return released
  } finally {
    sim.close()
  }
}

/**
 * An owner is cut off from its holders, somebody releases there, and it is killed before they hear of
 * it. Gives who released the mail, in order.
 */
function releasedApart(): readonly string[] {
  return releasedIn(({ sim: { world, cluster }, owner, others, id, click }) => {
    cluster.fabric.cut('split', around(owner))
    click(owner)
    world.runFor(10_000)
    world.act(() => owner.crash(false))
    cluster.fabric.heal('split')
    const isTaken = (): boolean =>
      others.some(({ id: node, run }) => run?.held.quarantine.one(id)?.row.owner.id === node)
    expect(world.runTill(isTaken, 300_000, 500)).toBe(true)
    for (const other of others) click(other)
    world.runFor(120_000)
    world.act(() => owner.start())
  })
}

test('an owner that is killed after a claim that nobody heard of: who takes over releases it, once', () => {
  const released = releasedApart()
  expect(released).toHaveLength(1)
  expect(released).not.toContain('mx1')
})

/**
 * The owner is killed when its queue has a mail, and comes back in the end. Gives who released it,
 * and how many were counted.
 */
function killedBehindItsQueue(afterMs: number): readonly [readonly string[], number] {
  let counted = 0
  let sim: MailSimulation | null = null
  const released = releasedIn(
    (calm) => {
      sim = calm.sim
      const { owner, others, id, click } = calm
      click(owner)
      const isTaken = (): boolean =>
        others.some(({ id: node, run }) => run?.held.quarantine.one(id)?.row.owner.id === node)
      expect(sim.world.runTill(isTaken, 300_000, 500)).toBe(true)
      sim.world.runFor(60_000)
      // What was never asked of the former owner is as sure as ever.
      sim.world.act(() => {
        for (const { run } of others) {
          run?.held.click(id, { kind: 'release', recipient: null, anyway: false }).catch(() => {})
        }
      })
      sim.world.runFor(60_000)
      const before = sim.ledger.heldDoubts.get(id) ?? 0
      sim.world.act(() => owner.start())
      sim.world.runFor(60_000)
      counted = sim.ledger.heldDoubts.get(id) ?? 0
      // Its word is about what was counted.
      expect(counted).toBe(before)
    },
    {
      onReleased: (node, count) => {
        if (count === 0) sim?.world.after(afterMs, () => node.crash(false))
      },
    },
  )
  return [released, counted]
}

test('an owner that is killed before it tells what its queue has: the next one sends again, and counts that', () => {
  const [released, counted] = killedBehindItsQueue(0)
  expect(released).toEqual(['mx1', 'mx2', 'mx2'])
  expect(counted).toBe(1)
})

test('an owner that is killed when it has told what its queue has: nothing is in doubt', () => {
  const [released, counted] = killedBehindItsQueue(1_000)
  expect(released).toEqual(['mx1', 'mx2'])
  expect(counted).toBe(0)
})

test('a release anyway of what its owner had sent apart is counted once, also when that owner says so', () => {
  const counted: number[] = []
  const released = releasedIn(({ sim: { world, cluster, ledger }, owner, others, id, click }) => {
    const holder = others.find(({ bodies }) => bodies.kept.has(id)) as SimNode
    const count = (): number => counted.push(ledger.heldDoubts.get(id) ?? 0)
    cluster.fabric.cut('split', around(owner))
    click(owner)
    // Its holders are silent for so long that it goes on alone.
    world.runFor(120_000)
    const anyway = { kind: 'release', recipient: RECIPIENTS[0] ?? null, anyway: true } as const
    world.act(() => holder.run?.held.click(id, anyway).catch(() => {}))
    world.runFor(120_000)
    count()
    cluster.fabric.heal('split')
    world.runFor(60_000)
    count()
    expect(world.seen.get('held mail yielded')).toBe(1)
  })
  expect(released).toEqual(['mx1', 'mx2'])
  expect(counted).toEqual([1, 1])
})

test('an owner that was dead for sure decides itself as soon as it is back', () => {
  const released = releasedIn(({ sim: { world }, owner, others, id, click }) => {
    const holder = others.find(({ bodies }) => bodies.kept.has(id)) as SimNode
    world.act(() => owner.crash(false))
    const isConfirmed = (): boolean =>
      holder.run?.mail?.custody?.absences.isConfirmed(owner.id) === true
    expect(world.runTill(isConfirmed, 60_000, 10)).toBe(true)
    world.act(() => owner.start())
    const isBack = (): boolean =>
      holder.cluster.members.get(owner.id)?.life === 'alive' &&
      owner.run?.cluster?.members.get(holder.id)?.life === 'alive'
    expect(world.runTill(isBack, 60_000, 1)).toBe(true)
    click(owner)
    // The claim is known to the holder, and the mail is on its way into the owner's queue.
    const isClaimed = (): boolean =>
      holder.run?.held.quarantine.one(id)?.copies[0]?.claim?.kind === 'release'
    expect(world.runTill(isClaimed, 1_000, 1)).toBe(true)
    click(holder)
  })
  expect(released).toEqual(['mx1'])
})

/**
 * Apart from its holder an owner does what the third alone learns of, before `goBack`: both go down,
 * and the owner starts with the disk that it had, beside its holder.
 */
function forgetful({ sim: { world, cluster }, owner, others, id }: Calm) {
  const holder = others.find(({ bodies }) => bodies.kept.has(id)) as SimNode
  const third = others.find((one) => one !== holder) as SimNode
  const image = owner.snapshot()
  cluster.fabric.cut('holder', around(holder))
  const goBack = (quiet: boolean): void => {
    world.act(() => third.crash(quiet))
    world.act(() => owner.crash(quiet))
    owner.restore(image)
    cluster.fabric.heal('holder')
    world.act(() => owner.start())
    world.runFor(20_000)
  }
  return { holder, third, goBack }
}

/** The owner's disk goes back, it decides, and then rows come back to it that it wrote before. */
function rowsComeBack(calm: Calm, decides: () => void): void {
  const { owner, id } = calm
  const { world } = calm.sim
  const { third, goBack } = forgetful(calm)
  world.runFor(1_000)
  world.act(() => {
    for (const perhaps of [[third.id], [], [third.id]]) {
      owner.run?.held.quarantine.setHolding(id, {
        perhaps,
        lost: perhaps.length > 0 ? [] : [third.id],
      })
    }
  })
  world.runFor(5_000)
  goBack(true)
  decides()
  world.runFor(30_000)
  world.act(() => third.start())
}

test('an owner whose disk went back keeps what it decided since, when rows of before come back to it', () => {
  let again = 0
  const released = releasedIn((calm) => {
    const { world } = calm.sim
    const { owner, others, id, click } = calm
    rowsComeBack(calm, () => click(owner))
    world.runFor(20_000)
    click(owner)
    for (const other of others) click(other)
    world.runFor(120_000)
    const claims = [owner, ...others].map(
      ({ run }) => run?.held.quarantine.one(id)?.copies[0]?.claim?.kind,
    )
    expect(claims).toEqual(['release', 'release', 'release'])
    again = owner.run?.held.quarantine.pendingReleases().length ?? 0
  })
  expect(released).toEqual(['mx1'])
  expect(again).toBe(0)
})

test('what has expired at an owner whose disk went back stays so, when rows of before come back to it', () => {
  const released = releasedIn(
    (calm) => {
      const { world } = calm.sim
      const { owner, id, click } = calm
      const held = () => owner.run?.held.quarantine
      const hasExpired = (): boolean =>
        held()
          ?.one(id)
          ?.copies.every(({ claim }) => claim?.kind === 'expire') === true
      rowsComeBack(calm, () => expect(world.runTill(hasExpired, 120_000)).toBe(true))
      const version = held()?.versionOf(id)
      const isBack = (): boolean => held()?.versionOf(id) !== version
      expect(world.runTill(isBack, 20_000, 1)).toBe(true)
      expect(hasExpired()).toBe(true)
      click(owner)
    },
    { keepMs: 90_000 },
  )
  expect(released).toEqual([])
})

/**
 * An owner releases while its holder is cut off, its disk goes back to before that, and it dies for
 * good before who knows of the release comes back. `clicks`: somebody releases at the next owner
 * before that; `isSent`: who comes back knows that it went into a queue, else that it was claimed.
 * Gives who released it, and how many were counted before and after.
 */
function forgottenRelease(
  clicks: boolean,
  isSent = true,
): readonly [readonly string[], number, number] {
  let counted: readonly [number, number] = [0, 0]
  const released = releasedIn((calm) => {
    const { owner, id, click } = calm
    const { world, ledger } = calm.sim
    const { holder, third, goBack } = forgetful(calm)
    const doubts = (): number => ledger.heldDoubts.get(id) ?? 0
    click(owner)
    const copyAt = (at: SimNode) => at.run?.held.quarantine.one(id)?.copies[0]
    if (!isSent) {
      world.runFor(5_000)
      expect(copyAt(third)?.claim?.kind).toBe('release')
      calm.sim.cluster.fabric.cut('third', around(third))
    }
    const isKnown = (): boolean => copyAt(isSent ? third : owner)?.enqueuedMs != null
    expect(world.runTill(isKnown, 120_000)).toBe(true)
    goBack(false)
    calm.sim.cluster.fabric.heal('third')
    world.act(() => owner.crash(false))
    const isTaken = (): boolean => holder.run?.held.quarantine.one(id)?.row.owner.id === holder.id
    expect(world.runTill(isTaken, 300_000)).toBe(true)
    if (clicks) click(holder)
    world.runFor(30_000)
    const before = doubts()
    world.act(() => third.start())
    world.runFor(30_000)
    click(holder)
    world.runFor(120_000)
    counted = [before, doubts()]
  })
  return [released, ...counted]
}

test('a release that its owner and its heir cannot know of, as a disk went back: who knows stops the next one', () => {
  expect(forgottenRelease(false)).toEqual([['mx1'], 0, 0])
})

test('a release that went out again as a disk went back is counted as soon as somebody knows of both', () => {
  expect(forgottenRelease(true)).toEqual([['mx1', 'mx2'], 0, 1])
})

test('a release that perhaps went out before a disk went back is counted, when somebody knows that it was claimed', () => {
  expect(forgottenRelease(true, false)).toEqual([['mx1', 'mx2'], 0, 1])
  expect(forgottenRelease(false, false)).toEqual([['mx1', 'mx2'], 0, 1])
})

/** The data directory of the owner goes back to before it held a mail, with a release or without. */
function releasedAfterReturn(isClaimed: boolean): readonly string[] {
  let image: Snapshot | null = null
  return releasedIn(
    ({ sim: { world }, owner, others, id, click }) => {
      const holder = others.find(({ bodies }) => bodies.kept.has(id)) as SimNode
      const claimAt = (at: SimNode) => at.run?.held.quarantine.one(id)?.copies[0]?.claim?.kind
      if (isClaimed) {
        click(owner)
        expect(world.runTill(() => claimAt(holder) === 'release', 1_000, 1)).toBe(true)
      }
      world.act(() => owner.crash(true))
      if (image === null) throw new Error('it has held')
      owner.restore(image)
      expect(owner.bodies.kept.has(id)).toBe(false)
      world.act(() => owner.start())
      world.runFor(60_000)
      if (!isClaimed) {
        // Its content is back before somebody asks for it.
        expect(owner.bodies.kept.has(id)).toBe(true)
        click(owner)
      }
      world.runFor(120_000)
      expect(claimAt(owner)).toBe('release')
    },
    { before: (owner) => (image = owner.snapshot()) },
  )
}

test('a mail that comes back to an owner whose data directory went back has its content again', () => {
  expect(releasedAfterReturn(false)).toEqual(['mx1'])
})

test('a release that comes back to an owner whose data directory went back leaves without a restart', () => {
  expect(releasedAfterReturn(true)).toEqual(['mx1'])
})

test('a sealed file that comes back to an owner whose data directory went back goes again when its mail is over', () => {
  const released = releasedIn(({ sim: { world, knobs }, owner, others, id }) => {
    const image = owner.snapshot()
    const isGone = (): boolean => ![owner, ...others].some(({ bodies }) => bodies.kept.has(id))
    const withinMs = patienceOf(knobs.timeScale).deletedMs + 60_000
    const release = { kind: 'release', recipient: null, anyway: false } as const
    world.act(() => owner.run?.held.click(id, release).catch(() => {}))
    expect(world.runTill(isGone, withinMs, 1_000)).toBe(true)
    // What its row says by then is known to the others.
    world.runFor(20_000)
    world.act(() => owner.crash(true))
    owner.restore(image)
    expect(owner.bodies.kept.has(id)).toBe(true)
    world.act(() => owner.start())
    expect(world.runTill(isGone, withinMs, 1_000)).toBe(true)
    expect(owner.run?.held.quarantine.one(id)?.bodyGone).toBe(true)
  })
  expect(released).toEqual(['mx1', 'mx1'])
})

test('a mail that comes back to an owner whose data directory went back, with no content anywhere, is not released', () => {
  const sim = new MailSimulation(1, { tune: calmMail })
  try {
    const { world } = sim
    const [owner, other] = sim.nodes as [SimNode, SimNode]
    world.runFor(20_000)
    const image = owner.snapshot()
    const id = world.act(() => owner.run?.held.hold()) as MessageId
    const entryAt = (at: SimNode) => at.run?.held.quarantine.one(id)
    expect(world.runTill(() => entryAt(other) != null, 5_000, 10)).toBe(true)
    world.act(() => owner.crash(true))
    owner.restore(image)
    world.runFor(20_000)
    const release = { kind: 'release', recipient: null, anyway: false } as const
    world.wait(other.run?.held.click(id, release) ?? Promise.resolve(null))
    expect(entryAt(other)?.row.pending).toHaveLength(2)
    world.act(() => owner.start())
    // As soon as its row is back: what waits for its owner is run in the same step.
    expect(world.runTill(() => entryAt(owner) != null, 60_000, 1)).toBe(true)
    const refused = world.wait(
      (owner.run?.held.click(id, release) ?? Promise.resolve(null)).catch((error) => error),
    )
    expect(String(refused)).toContain('The content of this mail is missing')
    world.runFor(120_000)
    for (const at of [owner, other]) {
      expect(entryAt(at)?.copies.map(({ claim }) => claim)).toEqual([null, null])
      expect(entryAt(at)?.row.pending).toHaveLength(2)
    }
  } finally {
    sim.close()
  }
})

test('a claim that takes effect without the holders is found', () => {
  const { prototype } = Taken
  const { by } = prototype
  prototype.by = () => Promise.resolve()
  try {
    expect(releasedApart()).toHaveLength(2)
  } finally {
    prototype.by = by
  }
})
