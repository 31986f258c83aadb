/** A clamd of the test's own, with the signatures that it is given: the data base of the makers is not fetched. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** Writes its settings below `directory` and gives its command line. `signatures`: octets by name. */
export function clamdCommand(
  directory: string,
  port: number,
  signatures: Readonly<Record<string, string>>,
  more: readonly string[] = [],
): readonly string[] {
  const db = join(directory, 'db')
  mkdirSync(db, { recursive: true, mode: 0o755 })
  // NAME:any kind of file:anywhere:hex (ClamAV, body-based signatures).
  const lines = Object.entries(signatures).map(
    ([name, octets]) => `${name}:0:*:${Buffer.from(octets).toString('hex')}\n`,
  )
  writeFileSync(join(db, 'test.ndb'), lines.join(''))
  const config = join(directory, 'clamd.conf')
  const settings = [
    'Foreground yes',
    `DatabaseDirectory ${db}`,
    `TCPSocket ${port}`,
    'TCPAddr 127.0.0.1',
    `LogFile ${join(directory, 'log')}`,
    'User root',
    ...more,
  ]
  writeFileSync(config, settings.map((line) => `${line}\n`).join(''))
  return ['/usr/sbin/clamd', '-c', config]
}
