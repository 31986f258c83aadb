/** A process that commits a setting and a claim again and again, and says so after each: to be killed. */
import { ManualClock } from '../clock.ts'
import { Room } from '../rooms.ts'

const [directory, from] = process.argv.slice(2)
const room = new Room(directory, new ManualClock(), 1_000 + Number(from))
for (let count = Number(from) + 1; ; count++) {
  room.changes.setSetting('cli', 'limits.messages', (count % 1_000) + 1)
  room.clock.advance(1_000 * count)
  const mail = room.held({}, [0])
  room.quarantine.add(mail)
  room.quarantine.claim(mail.row.id, null, { kind: 'release', by: 'cli', atMs: count })
  process.stdout.write(`${count}\n`)
}
