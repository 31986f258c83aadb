/** A real slapd with one person, whom only its administrator may look up. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pause, SystemClock } from '../src/base/clock.ts'
import { freePort } from './ports.ts'

const clock = new SystemClock()

/** `cn=admin,dc=x,dc=test` with the password `secret`; ann@x.test, who is alias@x.test too. */
export class Slapd {
  readonly port: number
  readonly #place: string
  readonly #child: Bun.Subprocess

  private constructor(place: string, port: number, config: string) {
    this.port = port
    this.#place = place
    this.#child = Bun.spawn(['slapd', '-f', config, '-h', `ldap://127.0.0.1:${port}`, '-d', '0'], {
      stdout: 'ignore',
      stderr: 'ignore',
    })
  }

  static async start(): Promise<Slapd> {
    const place = mkdtempSync(join(tmpdir(), 'postern-slapd-'))
    mkdirSync(join(place, 'db'))
    const config = join(place, 'slapd.conf')
    writeFileSync(
      config,
      `include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
disallow bind_anon
require authc
database mdb
suffix "dc=x,dc=test"
rootdn "cn=admin,dc=x,dc=test"
rootpw secret
directory ${join(place, 'db')}
`,
    )
    const people = join(place, 'people.ldif')
    writeFileSync(
      people,
      `dn: dc=x,dc=test
objectClass: domain
dc: x

dn: cn=Ann,dc=x,dc=test
objectClass: inetOrgPerson
cn: Ann
sn: Example
mail: ann@x.test
description: smtp:alias@x.test
`,
    )
    const added = Bun.spawnSync(['slapadd', '-f', config, '-l', people])
    if (added.exitCode !== 0) throw new Error(added.stderr.toString())
    const slapd = new Slapd(place, freePort(), config)
    while (!(await isOpen(slapd.port))) await pause(clock, 20)
    return slapd
  }

  async stop(): Promise<void> {
    this.#child.kill()
    await this.#child.exited
    rmSync(this.#place, { recursive: true })
  }
}

function isOpen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}
