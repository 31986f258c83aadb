/** What every page is given: the one source of data, the guard, the shell around it. */

import type { Admin } from '../src/admin/contract.ts'
import type { Clock } from '../src/base/clock.ts'
import type { Assets } from './embed.ts'
import type { Flashes } from './flashes.ts'
import type { Guard } from './guard.ts'
import type { Streams } from './streams.ts'

export type Site = {
  readonly admin: Admin
  readonly clock: Clock
  readonly guard: Guard
  readonly flashes: Flashes
  readonly streams: Streams
  readonly assets: Assets
  readonly nodeName: string
  /** The file of this program; null when it runs from source. */
  readonly program: string | null
}
