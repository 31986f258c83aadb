/** Many held mails in the data directory of a stopped node, as rows of a peer that is no more. */
import { MessageIds, newNodeId } from '../../src/base/ids.ts'
import { Observer } from '../../src/base/observe.ts'
import { SystemRandom } from '../../src/base/random.ts'
import { readNodeFile } from '../../src/config/local.ts'
import { heldProjection } from '../../src/store/held-index.ts'
import { type HeldValue, heldKey } from '../../src/store/held-row.ts'
import { openDatabases } from '../../src/store/open.ts'
import { Replica } from '../../src/store/replica.ts'
import { clock } from './cluster.ts'

const AT_A_TIME = 1_000
const KEPT_MS = 30 * 86_400_000

/** Puts `count` rows; each is about as long as one of a real mail. */
export function holdMany(directory: string, count: number): void {
  const random = new SystemRandom()
  const node = readNodeFile(directory)?.nodeId
  if (node === undefined) throw new Error(`${directory} has no node`)
  const observer = new Observer(clock, () => {})
  const { state, trace } = openDatabases(directory, { clock, observer })
  try {
    const rows = new Replica(state, { clock, random, node })
    rows.project('held', heldProjection(state, node))
    rows.start()
    const owner = newNodeId(random)
    const ids = new MessageIds(owner, 1, clock)
    for (let from = 0; from < count; from += AT_A_TIME) {
      rows.transact(() => {
        for (let n = from; n < Math.min(count, from + AT_A_TIME); n += 1) {
          const value = heldValue(n, owner)
          const untilMs = value.row === undefined ? null : value.row.expiresMs
          rows.put('held', heldKey(ids.next(), 0), [1, 0], JSON.stringify(value), 'test', untilMs)
        }
      })
    }
  } finally {
    state.close()
    trace.close()
  }
}

function heldValue(n: number, owner: HeldValue['owner']): HeldValue {
  const heldMs = clock.wallMs() - n
  return {
    owner,
    row: {
      sender: `sender${n}@bulk.example`,
      subject: `A subject that is as long as most subjects are, ${n}`,
      from: `"Sender ${n}" <sender${n}@bulk.example>`,
      clientIp: '192.0.2.1',
      sizeBytes: 40_000,
      score: 9,
      rules: ['GTUBE', 'MISSING_DATE'],
      findings: [
        { rule: 'GTUBE', score: 8, evidence: 'The message holds the test text GTUBE.' },
        { rule: 'MISSING_DATE', score: 1, evidence: 'There is no Date field.' },
      ],
      unknowns: [],
      heldMs,
      expiresMs: heldMs + KEPT_MS,
    },
    copies: [{ place: 0, address: `ann${n % 100}@example.com` }],
  }
}
