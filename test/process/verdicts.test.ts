/** The same 1,000 mails on three nodes that were taught the same in other orders: the same findings. */
import { afterAll, expect, test } from 'bun:test'
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { sampleOf } from '../../src/mail/inspect/sample.ts'
import { LearnedTable } from '../../src/store/learned-table.ts'
import { judgeWith } from '../bench/detection/ours.ts'
import { type Labelled, labelledMail } from '../bench/detection/set.ts'

const scratch = mkdtempSync(join(tmpdir(), 'postern-verdicts-'))
afterAll(() => rmSync(scratch, { recursive: true, force: true }))

const all = labelledMail()
/** Every third of a half: some of each class. */
const train = all.filter(({ half }) => half === 'train').filter((_, index) => index % 3 === 0)
const judged = all.filter(({ half }) => half === 'test').filter((_, index) => index % 3 === 0)

/** One that learnt by mistake, and forgot it again, has grown differently. */
function taught(name: string, order: readonly Labelled[], mistakes: readonly Labelled[]): string {
  const directory = join(scratch, name)
  mkdirSync(directory)
  const table = new LearnedTable(directory, () => 'counts-1')
  const lesson = ({ raw, isSpam }: Labelled, wrong = false) => ({
    sample: sampleOf(raw),
    label: isSpam === wrong ? ('ham' as const) : ('spam' as const),
    domain: null,
  })
  for (const one of mistakes) {
    table.count(lesson(one, true), 1)
    table.know(lesson(one, true))
  }
  for (const one of order) {
    table.count(lesson(one), 1)
    table.know(lesson(one))
  }
  for (const one of mistakes) {
    table.count(lesson(one, true), -1)
    if (!order.includes(one)) table.unknow(sampleOf(one.raw).fingerprint)
  }
  table.flush()
  table.close()
  return join(directory, 'counts-1')
}

test('1,000 mails give equal findings on three nodes, twice', async () => {
  expect(judged.length).toBeGreaterThanOrEqual(1_000)
  const paths = [
    taught('a', train, []),
    taught('b', train.toReversed(), judged.slice(0, 50)),
    taught('c', [...train.slice(500), ...train.slice(0, 500)], judged.slice(50, 100)),
  ]
  const said: string[] = []
  for (const path of paths) {
    const { inspect, close } = judgeWith(join(scratch, `spool-${said.length}`), path)
    for (let time = 0; time < 2; time += 1) {
      const findings = await Promise.all(judged.map(({ raw }) => inspect(raw)))
      said.push(JSON.stringify(findings))
    }
    await close()
  }
  const [first = ''] = said
  expect(first).toContain('BAYES_SPAM')
  expect(first).toContain('FUZZY_DENIED')
  expect(said.map((one) => one === first)).toEqual([true, true, true, true, true, true])
}, 280_000)
