/** A web on loopback with an invented node behind it, and a browser to look at it. */
import { type Browser, chromium, type Page } from 'playwright-core'
import { SystemClock } from '../../src/base/clock.ts'
import { Observer } from '../../src/base/observe.ts'
import { SystemRandom } from '../../src/base/random.ts'
import { createWeb, type Web } from '../../web/server.ts'
import { FakeAdmin, type Mail, PASSWORD } from '../web-fake.ts'

export type Place = {
  /** Without a slash at its end. */
  readonly url: string
  readonly admin: FakeAdmin
  readonly web: Web
  /** Every address that was asked for, in order: path and query. */
  readonly asked: string[]
  stop(): void
}

type About = {
  readonly mails: readonly Mail[]
  readonly setup?: boolean
  /** Another build of the web, to prove that a test can fail. */
  readonly create?: typeof createWeb
}

export function serve({ mails, setup = false, create = createWeb }: About): Place {
  const clock = new SystemClock()
  const admin = new FakeAdmin({ clock, mails, setup, ...(setup ? { domains: [] } : {}) })
  const observer = new Observer(clock, () => {})
  const web = create({
    admin,
    clock,
    random: new SystemRandom(),
    observer,
    secure: false,
    nodeName: 'mx1',
  })
  const asked: string[] = []
  const server = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    fetch(request) {
      const { pathname, search } = new URL(request.url)
      asked.push(pathname + search)
      return web.handle(request, { ip: '127.0.0.1', trusted: false })
    },
  })
  return {
    url: server.url.href.replace(/\/$/, ''),
    admin,
    web,
    asked,
    stop() {
      web.close()
      void server.stop(true)
    },
  }
}

/** As root Chromium has no sandbox of its own; nothing but these pages is opened. */
export function launch(): Promise<Browser> {
  return chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] })
}

export async function signIn(page: Page, place: Place): Promise<void> {
  await page.goto(`${place.url}/login`)
  await page.fill('[name=name]', 'a.ruiz')
  await page.fill('[name=password]', PASSWORD)
  await page.click('button:has-text("Sign in")')
  await page.waitForURL(`${place.url}/`)
}
