/** The dialogues of test/smtp/*.smtp against real nodes, and against smtp-server as an oracle. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Nodes } from './nodes.ts'
import { startOracle } from './oracle.ts'
import { play, type Target } from './play.ts'
import { type Dialogue, parseDialogues } from './script.ts'

/** Dialogues that run at the same time: enough to hide their waits, few enough for two cores. */
const AT_A_TIME = 6
const DIALOGUE_MS = 90_000

const read = (name: string) => readFileSync(join(import.meta.dir, name), 'utf8')
const dialogues = readdirSync(import.meta.dir)
  .filter((name) => name.endsWith('.smtp'))
  .sort()
  .flatMap((name) => parseDialogues(name, read(name), (part) => read(`${part}.part`)))

/** The rows of the attack catalogue that this folder answers for. */
const ROWS = (
  [
    ['A', 25],
    ['B', 8],
    ['C', 25],
    ['D', 18],
  ] as const
).flatMap(([letter, count]) =>
  Array.from({ length: count }, (_, at) => `${letter}${String(at + 1).padStart(2, '0')}`),
)

const title = (dialogue: Dialogue) => `${dialogue.ids.join(' ')} ${dialogue.promise}`.trim()
const token = (at: number, prefix: string) => `${prefix}${String(at).padStart(4, '0')}x`

/** Plays all of `chosen`, a few at a time, long ones first; each promise settles with its failure or null. */
function playAll(
  chosen: readonly [number, Dialogue][],
  prefix: string,
  target: (node: string) => Target,
): Map<number, Promise<Error | null>> {
  const ends = new Map<number, (failure: Error | null) => void>()
  const results = new Map<number, Promise<Error | null>>()
  for (const [at] of chosen) results.set(at, new Promise((resolve) => ends.set(at, resolve)))
  const waiting = [...chosen].sort(([, one], [, other]) => lengthOf(other) - lengthOf(one))
  const lane = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const [at, dialogue] = next
      const failure = await play(dialogue, token(at, prefix), target(dialogue.node)).then(
        () => null,
        (error: unknown) => (error instanceof Error ? error : new Error(String(error))),
      )
      ends.get(at)?.(failure)
    }
  }
  for (let n = 0; n < AT_A_TIME; n += 1) void lane()
  return results
}

/** Dialogues on the nodes with time limits wait for real seconds. */
function lengthOf({ node }: Dialogue): number {
  return node === 'limits' || node === 'slow' ? 1 : 0
}

describe('a real node', () => {
  let nodes: Nodes
  let results: Map<number, Promise<Error | null>>
  beforeAll(async () => {
    nodes = await Nodes.start()
    results = playAll([...dialogues.entries()], 't', (name) => nodes.target(name))
  }, 60_000)
  afterAll(() => nodes?.dispose())

  for (const [at, dialogue] of dialogues.entries()) {
    test(title(dialogue), async () => expect(await results.get(at)).toBeNull(), DIALOGUE_MS)
  }

  test(
    'no message of any dialogue comes late, twice, or dirty',
    async () => {
      await Promise.all(results.values())
      const late: string[] = []
      for (const [at, dialogue] of dialogues.entries()) {
        const expected = dialogue.steps.findLast(({ verb }) => verb === 'expect-mail')
        const got = nodes.with(token(at, 't'))
        if (expected !== undefined && got.length !== Number(expected.words))
          late.push(`${dialogue.where}: ${got.length}`)
        if (got.some(({ dirt }) => dirt.length > 0)) late.push(`${dialogue.where}: dirt`)
      }
      expect(late).toEqual([])
    },
    DIALOGUE_MS,
  )

  test('the nodes live on, and none failed in itself', async () => {
    for (const name of ['plain', 'repair', 'limits', 'slow']) {
      expect(nodes.node(name).running).toBeTrue()
      expect(nodes.node(name).log()).not.toMatch(/"level":"error"|AssertionError|TypeError/)
    }
  })
})

describe('smtp-server, the oracle', () => {
  let oracle: Awaited<ReturnType<typeof startOracle>>
  let results: Map<number, Promise<Error | null>>
  const shared = [...dialogues.entries()].filter(
    ([, { node, oracle }]) => node === 'plain' && oracle.kind !== 'none',
  )
  beforeAll(async () => {
    oracle = await startOracle()
    results = playAll(shared, 'o', () => oracle)
  })
  afterAll(() => oracle?.stop())

  for (const [at, dialogue] of shared) {
    if (dialogue.oracle.kind === 'differs') continue
    test(title(dialogue), async () => expect(await results.get(at)).toBeNull(), DIALOGUE_MS)
  }

  // Where it is known to be wrong the dialogue must say so, or it cannot fail at all.
  const wrong = Map.groupBy(
    shared.filter(([, { oracle }]) => oracle.kind === 'differs'),
    ([, { where }]) => where,
  )
  for (const [where, group] of wrong) {
    const { oracle, ids } = (group[0] as [number, Dialogue])[1]
    test(
      `differs at ${where} ${ids.join(' ')}: ${oracle.why}`,
      async () => {
        const failures = await Promise.all(group.map(([at]) => results.get(at)))
        expect(failures.filter((failure) => failure !== null)).not.toBeEmpty()
      },
      DIALOGUE_MS,
    )
  }
})

test('every row of the catalogue has a dialogue', () => {
  const answered = new Set(dialogues.flatMap(({ ids }) => ids))
  expect(ROWS.filter((id) => !answered.has(id) && !read('starttls.test.ts').includes(id))).toEqual(
    [],
  )
})
