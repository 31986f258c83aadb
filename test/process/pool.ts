/** A parent of two inspectors that does nothing more: the tests kill it. argv: spool directory, command. */
import { SystemClock } from '../../src/base/clock.ts'
import { Observer } from '../../src/base/observe.ts'
import { PLAIN_CONFIG } from '../../src/mail/inspect/look.ts'
import { createInspectors } from '../../src/mail/inspect/pool.ts'
import { ENVELOPE } from '../look.ts'

const [spoolDir = '/tmp', ...command] = process.argv.slice(2)
const clock = new SystemClock()
const pool = createInspectors(
  { command, processes: 2, spoolDir },
  { clock, observer: new Observer(clock, () => {}) },
)
const inspect = (body: string, budgetMs: number) =>
  pool.inspect({
    envelope: ENVELOPE,
    body: { kind: 'memory', bytes: Buffer.from(body) },
    inspectors: ['gtube'],
    config: PLAIN_CONFIG,
    clientName: null,
    sha256: null,
    budgetMs,
  })
while (pool.health().ready < 2) await inspect('Subject: x\r\n\r\n', 10_000)
process.stdout.write('ready\n')
