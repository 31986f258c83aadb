/** Three real nodes: what is taught to one is known to all, and forgotten by all. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { labelledMail } from '../bench/detection/set.ts'
import { freePort } from '../ports.ts'
import { Postern } from './postern.ts'
import { Sink } from './sink.ts'
import { sayMail } from './wire.ts'

const clock = new SystemClock()
/** The promise of the design: a training on one node changes verdicts on another. */
const KNOWN_MS_MAX = 5_000

const all = labelledMail()
const spam = all.filter(({ isSpam, half }) => isSpam && half === 'train').slice(0, 4)
const ham = all.filter(({ isSpam, half }) => !isSpam && half === 'train').slice(0, 4)

type Judged = {
  readonly judgement: {
    readonly score: number
    readonly findings: readonly { readonly rule: string; readonly evidence: string }[]
    readonly unknowns: readonly unknown[]
  } | null
}

const sink = new Sink()
const nodes: Postern[] = []
const [a, b, c] = [0, 1, 2].map((index) => () => nodes[index] as Postern) as [
  () => Postern,
  () => Postern,
  () => Postern,
]

beforeAll(async () => {
  const options = () => ['--peer', `127.0.0.1:${freePort()}`, '--advertise', '127.0.0.1']
  nodes.push(await Postern.start({ options: options() }))
  await a().addDomain('example.com', sink.nextHop)
  await a().set('learning.minimum', '3')
  // Whoever is refused is not told an id.
  await a().set('policy.reject', '100')
  // Lists in the DNS and senders are not what this is about, and nobody answers here.
  await a().set('inspect.inspectors', 'headers,text,links,bayes,campaign,attachments')
  const init = { method: 'POST', body: JSON.stringify({ uses: 2 }) }
  const { token } = await a().api<{ token: string }>('/api/v1/invitations', init)
  for (let index = 0; index < 2; index += 1)
    nodes.push(await Postern.start({ options: [...options(), '--join', token] }))
}, 120_000)

afterAll(async () => {
  for (const node of nodes) await node.dispose()
  sink.stop()
})

function teach(node: Postern, raw: Buffer, as: string): Promise<{ spam: number; ham: number }> {
  const body = JSON.stringify({ as, source: raw.toString('base64'), domain: 'example.com' })
  return node.api('/api/v1/learning', { method: 'POST', body })
}

/** What a node says of a mail, by the history of it there. */
async function judge(node: Postern, raw: Buffer): Promise<NonNullable<Judged['judgement']>> {
  const said = await sayMail(node.smtpPort, raw)
  const id = / ([0-9a-z]{26})\b/.exec(said)?.[1] ?? ''
  for (const until = clock.monoMs() + 10_000; ; await pause(clock, 20)) {
    const { judgement } = await node.api<Judged>(`/api/v1/trace/${id}`)
    if (judgement) return judgement
    if (clock.monoMs() > until) throw new Error(`no judgement after ${JSON.stringify(said)}`)
  }
}

const rulesOf = ({ findings }: NonNullable<Judged['judgement']>) => findings.map(({ rule }) => rule)

async function until(what: () => Promise<boolean>): Promise<number> {
  const from = clock.monoMs()
  while (!(await what())) {
    if (clock.monoMs() - from > 4 * KNOWN_MS_MAX) break
    await pause(clock, 50)
  }
  return clock.monoMs() - from
}

test('a training on one node changes the verdicts of the others in 5 s, and forgetting takes it back', async () => {
  const [target] = spam
  const raw = target?.raw ?? Buffer.of()
  const before = await judge(b(), raw)
  expect(rulesOf(before)).not.toContain('FUZZY_DENIED')
  for (const { raw: one } of spam) await teach(a(), one, 'spam')
  for (const { raw: one } of ham) await teach(c(), one, 'ham')
  const isKnown = async () => {
    const rules = rulesOf(await judge(b(), raw))
    return rules.includes('FUZZY_DENIED') && rules.includes('BAYES_SPAM')
  }
  expect(await until(isKnown)).toBeLessThanOrEqual(KNOWN_MS_MAX)
  for (const node of nodes)
    expect(await node.api<object>('/api/v1/learning')).toEqual({ spam: 4, ham: 4, minimum: 3 })
  for (const { raw: one } of [...spam, ...ham]) await teach(c(), one, 'forget')
  const isForgotten = async () => JSON.stringify(await judge(b(), raw)) === JSON.stringify(before)
  expect(await until(isForgotten)).toBeLessThanOrEqual(KNOWN_MS_MAX)
}, 120_000)
