/** Three real nodes with every inspector: what one says of a mail all say, and say again. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { type Labelled, labelledMail } from '../bench/detection/set.ts'
import { freePort } from '../ports.ts'
import { COUNTS } from './counts.ts'
import { Postern } from './postern.ts'
import { Sink } from './sink.ts'
import { sayMail } from './wire.ts'

const clock = new SystemClock()
/** Learnt before, of each label: enough for the counts to speak. */
const LEARNT = 20
const AT_ONCE = 8

const all = labelledMail()
const learnt = [true, false].flatMap((isSpam) =>
  all.filter((mail) => mail.half === 'train' && mail.isSpam === isSpam).slice(0, LEARNT),
)
const judged = spread(
  all.filter(({ half, raw }) => half === 'test' && isSendable(raw)),
  COUNTS.verdicts,
)

const sink = new Sink()
const nodes: Postern[] = []

/** Whole lines, and no NUL: what the gateway takes at all. */
function isSendable(raw: Buffer): boolean {
  return !/\r(?!\n)|\0/.test(raw.toString('latin1'))
}

/** `count` of them, from all parts of the list. */
function spread<Item>(items: readonly Item[], count: number): readonly Item[] {
  return Array.from({ length: count }, (_, index) => {
    return items[Math.floor((index * items.length) / count)] as Item
  })
}

beforeAll(async () => {
  const options = () => ['--peer', `127.0.0.1:${freePort()}`, '--advertise', '127.0.0.1']
  const first = await Postern.start({ options: options() })
  nodes.push(first)
  await first.addDomain('example.com', sink.nextHop)
  await first.set('learning.minimum', String(LEARNT))
  // Whoever is refused is not told an id.
  await first.set('policy.reject', '1000')
  const init = { method: 'POST', body: JSON.stringify({ uses: 2 }) }
  const { token } = await first.api<{ token: string }>('/api/v1/invitations', init)
  for (let index = 0; index < 2; index += 1)
    nodes.push(await Postern.start({ options: [...options(), '--join', token] }))
  for (const { raw, isSpam } of learnt) {
    const as = isSpam ? 'spam' : 'ham'
    const body = JSON.stringify({ as, source: raw.toString('base64'), domain: 'example.com' })
    await first.api('/api/v1/learning', { method: 'POST', body })
  }
  for (const node of nodes) await knowsAll(node)
}, 120_000)

afterAll(async () => {
  for (const node of nodes) await node.dispose()
  sink.stop()
})

async function knowsAll(node: Postern): Promise<void> {
  for (const until = clock.monoMs() + 20_000; ; await pause(clock, 50)) {
    const { spam, ham } = await node.api<{ spam: number; ham: number }>('/api/v1/learning')
    if (spam === LEARNT && ham === LEARNT) return
    if (clock.monoMs() > until) throw new Error(`it knows of ${spam} spam and ${ham} ham`)
  }
}

type History = {
  readonly rows: readonly { readonly accept: string; score: number; rules: readonly string[] }[]
  readonly judgement: object | null
}

/** What the node says of the mail, as its history there has it. */
async function judgementOf(node: Postern, { raw, path }: Labelled): Promise<string> {
  const said = await sayMail(node.smtpPort, raw)
  const id = / ([0-9a-z]{26})\b/.exec(said)?.[1]
  if (id === undefined) throw new Error(`${path}: ${said}`)
  for (const until = clock.monoMs() + 20_000; ; await pause(clock, 20)) {
    const { rows, judgement } = await node.api<History>(`/api/v1/trace/${id}`)
    const [row] = rows
    // Nothing found is no judgement; what was done says that it was looked at.
    if (row !== undefined) return JSON.stringify([row.accept, row.score, row.rules, judgement])
    if (clock.monoMs() > until) throw new Error(`no history of ${path}`)
  }
}

async function judgementsOf(node: Postern): Promise<readonly string[]> {
  const said: string[] = []
  let next = 0
  const work = async (): Promise<void> => {
    for (let at = next++; at < judged.length; at = next++)
      said[at] = await judgementOf(node, judged[at] as Labelled)
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work))
  return said
}

test('the same mails have byte-equal judgements on three nodes, twice', async () => {
  const first = await judgementsOf(nodes[0] as Postern)
  // They say something, and not of all the same.
  expect(new Set(first).size).toBeGreaterThan(judged.length / 2)
  for (const node of [...nodes.slice(1), ...nodes]) {
    const said = await judgementsOf(node)
    const others = judged.flatMap(({ path }, index) =>
      said[index] === first[index] ? [] : [{ path, said: said[index], first: first[index] }],
    )
    expect(others).toEqual([])
  }
}, 1_800_000)
