"""Known answers to the exercises of notebook 05, "Where should this code live?"."""

import asyncio
from collections import defaultdict
from typing import ClassVar

from bank import right, wrong
from fastapi import WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState

from labkit.broadcast.managers import TolerantManager

# ---- X5.1, disconnect that does no harm


class Listed:
    """The rest of CalmManager and of HushedManager, as the notebook gives it."""

    def __init__(self):
        self.connections: list[WebSocket] = []

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.connections.append(websocket)

    def disconnect(self, websocket: WebSocket):
        if websocket in self.connections:
            self.connections.remove(websocket)

    async def broadcast(self, text: str):
        for websocket in self.connections.copy():
            await websocket.send_text(text)


@right("X5.1")
class with_a_set:
    """Its verb asks no questions."""

    def __init__(self):
        self.connections: set[WebSocket] = set()

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.connections.add(websocket)

    def disconnect(self, websocket: WebSocket):
        self.connections.discard(websocket)

    async def broadcast(self, text: str):
        for websocket in self.connections.copy():
            await websocket.send_text(text)


@right("X5.1")
class catches_the_one_error(Listed):
    """Forgiveness in place of permission."""

    def disconnect(self, websocket: WebSocket):
        try:
            self.connections.remove(websocket)
        except ValueError:
            pass


@right("X5.1")
class builds_a_new_list(Listed):
    """All but this one."""

    def disconnect(self, websocket: WebSocket):
        self.connections = [each for each in self.connections if each is not websocket]


@wrong("X5.1", says="Fan 2 of 4 was let go twice, and your disconnect raised ValueError")
class removes(Listed):
    """The printed class."""

    def disconnect(self, websocket: WebSocket):
        self.connections.remove(websocket)


@wrong("X5.1", says="Fan 2 of 4 was let go; then came broadcast('GOAL 2'), and fan 2 heard it")
class does_nothing(Listed):
    """No error, and nobody ever leaves."""

    def disconnect(self, websocket: WebSocket):
        pass


@wrong("X5.1", says="Fan 2 of 4 was let go; then came broadcast('GOAL 2'), and fans 1, 3 and 4 never heard it")
class clears(Listed):
    """Twice is no error either."""

    def disconnect(self, websocket: WebSocket):
        self.connections.clear()


@wrong("X5.1", says="Fan 2 of 4 was let go; then came broadcast('GOAL 2'), and fan 4 never heard it")
class pops(Listed):
    """The last one is not the one."""

    def disconnect(self, websocket: WebSocket):
        if self.connections:
            self.connections.pop()


@wrong("X5.1", says="Fan 2 of 4 was let go twice; then came broadcast('GOAL 3'), and fan 4 never heard it")
class takes_place_minus_one(Listed):
    """`find` of a string says -1 for nothing, and a list has a place -1."""

    def disconnect(self, websocket: WebSocket):
        places = {each: place for place, each in enumerate(self.connections)}
        if self.connections:
            del self.connections[places.get(websocket, -1)]


@wrong("X5.1", says="Fan 3 said goodbye; then broadcast('GOAL 5') raised")
class asks_the_state(Listed):
    """Removes those who are connected, and so nobody who leaves."""

    def disconnect(self, websocket: WebSocket):
        if websocket.client_state == WebSocketState.CONNECTED and websocket in self.connections:
            self.connections.remove(websocket)


@wrong("X5.1", says="Fan 5 was refused before `connect`; the handler called disconnect, and ended in AttributeError")
class notes_it_on_the_websocket(Listed):
    """A mark that only those bear who came in."""

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        websocket.state.here = True
        self.connections.append(websocket)

    def disconnect(self, websocket: WebSocket):
        if websocket.state.here:
            websocket.state.here = False
            self.connections.remove(websocket)


@wrong("X5.1", says="disconnect() has nothing to wait for, and is called without `await`")
class is_async(Listed):
    """Called as the endpoint calls it, it never runs."""

    async def disconnect(self, websocket: WebSocket):
        if websocket in self.connections:
            self.connections.remove(websocket)


@wrong("X5.1", says="and this one was asked to let it go; then came broadcast('from the other one'), and fan 6 never")
class shares_one_list(Listed):
    """A list that belongs to the class belongs to all managers."""

    shared: ClassVar = []

    def __init__(self):
        self.connections = self.shared

    def disconnect(self, websocket: WebSocket):
        if websocket in self.connections:
            self.connections.remove(websocket)


# ---- X5.2, rooms


class Roomwise:
    """The model, to be changed in one place."""

    def __init__(self):
        self.rooms: dict[str, set[WebSocket]] = {}

    async def connect(self, websocket: WebSocket, room: str):
        await websocket.accept()
        self.rooms.setdefault(room, set()).add(websocket)

    def disconnect(self, websocket: WebSocket):
        for room, fans in list(self.rooms.items()):
            fans.discard(websocket)
            if not fans:
                del self.rooms[room]

    async def broadcast(self, text: str, room: str):
        for websocket in list(self.rooms.get(room, ())):
            await self.send(websocket, text)

    async def send(self, websocket: WebSocket, text: str):
        try:
            await websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            self.disconnect(websocket)


@right("X5.2")
class notes_the_room_of_each:
    """The dict the other way round; `rooms` is made when somebody asks."""

    def __init__(self):
        self.room_of = {}

    @property
    def rooms(self):
        found = defaultdict(list)
        for websocket, room in self.room_of.items():
            found[room].append(websocket)
        return dict(found)

    async def connect(self, websocket: WebSocket, room: str):
        await websocket.accept()
        self.room_of[websocket] = room

    def disconnect(self, websocket: WebSocket):
        self.room_of.pop(websocket, None)

    async def broadcast(self, text: str, room: str):
        fans = self.rooms.get(room, [])
        results = await asyncio.gather(*(each.send_text(text) for each in fans), return_exceptions=True)
        for each, result in zip(fans, results, strict=True):
            if result:
                self.disconnect(each)


@wrong("X5.2", says="broadcast('GOAL 1', 'semifinal'), and fans 1, 2 and 3 heard it, for whom it was not meant")
class tells_every_room(Roomwise):
    """The rooms are kept, and not asked."""

    async def broadcast(self, text: str, room: str):
        for fans in list(self.rooms.values()):
            for websocket in list(fans):
                await self.send(websocket, text)


@wrong("X5.2", says="broadcast('GOAL 2', 'final'), and fans 4 and 5 heard it, for whom it was not meant")
class looks_into_the_name(Roomwise):
    """`in` between two strings looks for a piece."""

    async def broadcast(self, text: str, room: str):
        for name, fans in list(self.rooms.items()):
            if room in name:
                for websocket in list(fans):
                    await self.send(websocket, text)


@wrong("X5.2", says="broadcast('GOAL 1', 'semifinal'), and fan 4 never heard it")
class makes_the_room_anew(Roomwise):
    """Whoever comes throws out those who were in."""

    async def connect(self, websocket: WebSocket, room: str):
        await websocket.accept()
        self.rooms[room] = {websocket}


@wrong("X5.2", says="broadcast('GOAL 1', 'semifinal'), and fan 4 heard it 2 times, in place of once")
class adds_twice(Roomwise):
    """A list, and one `append` too many for the first."""

    async def connect(self, websocket: WebSocket, room: str):
        await websocket.accept()
        if room not in self.rooms:
            self.rooms[room] = [websocket]
        self.rooms[room].append(websocket)


@wrong("X5.2", says="Nobody is in the room “cup”; then broadcast('GOAL 3', 'cup') raised KeyError")
class knows_only_rooms_with_fans(Roomwise):
    """A goal in a match that nobody follows."""

    async def broadcast(self, text: str, room: str):
        for websocket in list(self.rooms[room]):
            await self.send(websocket, text)


@wrong("X5.2", says="A goal came for the room “cup”, where nobody is. The rooms with somebody in them are")
class looks_up_in_a_defaultdict(Roomwise):
    """Looking makes an entry."""

    def __init__(self):
        self.rooms = defaultdict(set)

    async def broadcast(self, text: str, room: str):
        for websocket in list(self.rooms[room]):
            await self.send(websocket, text)


@wrong("X5.2", says="Fans 4 and 5, all who were in the semifinal, have left. The rooms with somebody in them are")
class leaves_the_light_on(Roomwise):
    """The last one goes, and the room stays."""

    def disconnect(self, websocket: WebSocket):
        for fans in self.rooms.values():
            fans.discard(websocket)


@wrong("X5.2", says="Fan 4 left the semifinal, and fan 5 is still in it; then came broadcast('GOAL 4', 'semifinal')")
class closes_the_room(Roomwise):
    """One goes, and all have to."""

    def disconnect(self, websocket: WebSocket):
        for room, fans in list(self.rooms.items()):
            if websocket in fans:
                del self.rooms[room]


@wrong("X5.2", says="have left, and 2 of them stand in it")
class never_lets_go(Roomwise):
    """The tolerant send hides it."""

    def disconnect(self, websocket: WebSocket):
        pass


@wrong("X5.2", says="dictionary changed size during iteration")
class deletes_while_walking(Roomwise):
    """Notebook 03, in a dict."""

    def disconnect(self, websocket: WebSocket):
        for room, fans in self.rooms.items():
            fans.discard(websocket)
            if not fans:
                del self.rooms[room]


@wrong("X5.2", says="The check calls disconnect() with 1 arguments")
class wants_the_room(Roomwise):
    """The endpoint does not tell it."""

    def disconnect(self, websocket: WebSocket, room: str):
        self.rooms[room].discard(websocket)
        if not self.rooms[room]:
            del self.rooms[room]


@wrong("X5.2", says="Fan 4, who had left, was let go once more, and your disconnect raised KeyError")
class pops_without_a_default(Roomwise):
    """Twice is an error again."""

    def __init__(self):
        self.rooms = {}
        self.room_of = {}

    async def connect(self, websocket: WebSocket, room: str):
        self.room_of[websocket] = room
        await super().connect(websocket, room)

    def disconnect(self, websocket: WebSocket):
        room = self.room_of.pop(websocket)
        self.rooms[room].discard(websocket)
        if not self.rooms[room]:
            del self.rooms[room]


@wrong("X5.2", says="its handler had not let it go; then broadcast('GOAL 9', 'final')")
class has_lost_the_try(Roomwise):
    """What notebook 04 had mended."""

    async def send(self, websocket: WebSocket, text: str):
        await websocket.send_text(text)

    async def broadcast(self, text: str, room: str):
        for websocket in list(self.rooms.get(room, ())):
            await self.send(websocket, text)


@wrong("X5.2", says="`rooms` is to be a dict, from the name of a room to those who are in it; yours is None")
class keeps_them_elsewhere(notes_the_room_of_each):
    """Right for all who listen, and nobody can look in."""

    rooms = None

    async def broadcast(self, text: str, room: str):
        for websocket in [each for each, theirs in self.room_of.items() if theirs == room]:
            await websocket.send_text(text)


# ---- X5.3, one bad connection


@right("X5.3")
class gathers_and_reads(Listed):
    """All at once; the results say who is gone, and what else went wrong."""

    async def broadcast(self, text: str):
        websockets = self.connections.copy()
        sends = (each.send_text(text) for each in websockets)
        results = await asyncio.gather(*sends, return_exceptions=True)
        for websocket, result in zip(websockets, results, strict=True):
            if isinstance(result, (WebSocketDisconnect, RuntimeError)):
                self.disconnect(websocket)
            elif result is not None:
                raise result


@right("X5.3")
class collects_the_gone(Listed):
    """Lets go after the walk, as TolerantManager does."""

    async def broadcast(self, text: str):
        gone = []
        for websocket in tuple(self.connections):
            try:
                await websocket.send_text(text)
            except (WebSocketDisconnect, RuntimeError):
                gone.append(websocket)
        for websocket in gone:
            self.disconnect(websocket)


@right("X5.3")
class inherits_all(TolerantManager):
    """Nothing of its own: the laboratory has such a class."""


class Tolerant(Listed):
    """What a cell above may hold."""

    async def broadcast(self, text: str):
        for websocket in list(self.connections):
            try:
                await websocket.send_text(text)
            except (WebSocketDisconnect, RuntimeError):
                self.disconnect(websocket)


@right("X5.3")
class inherits_all_from_another_cell(Tolerant):
    """Nothing of its own either."""


@wrong("X5.3", says="waited for fan 4; after the round it was off the list; then came broadcast('CORNER'), and fan 10")
class keeps_those_who_were_told(Listed):
    """Who came during the round was not told, and is thrown out."""

    async def broadcast(self, text: str):
        alive = []
        for websocket in self.connections.copy():
            try:
                await websocket.send_text(text)
                alive.append(websocket)
            except (WebSocketDisconnect, RuntimeError):
                pass
        self.connections = alive


@wrong("X5.3", says="Fan 4 of 9 vanished while your broadcast waited for it, and fans 5, 6, 7, 8 and 9 never heard it")
class breaks(Listed):
    """The `try` is inside, and the loop ends all the same."""

    async def broadcast(self, text: str):
        for websocket in self.connections.copy():
            try:
                await websocket.send_text(text)
            except (WebSocketDisconnect, RuntimeError):
                self.disconnect(websocket)
                break


@wrong("X5.3", says="then broadcast('GOAL 1') raised WebSocketDisconnect")
class looks_before_it_sends(Listed):
    """The state says connected until somebody receives; it is the advice given most often."""

    async def broadcast(self, text: str):
        for websocket in self.connections.copy():
            if websocket.client_state == WebSocketState.CONNECTED:
                await websocket.send_text(text)


@wrong("X5.3", says="Fan 4 of 9 vanished while your broadcast waited for it, and fan 5 never heard it")
class walks_the_list_itself(Listed):
    """The neighbour moves up by one."""

    async def broadcast(self, text: str):
        for websocket in self.connections:
            try:
                await websocket.send_text(text)
            except (WebSocketDisconnect, RuntimeError):
                self.disconnect(websocket)


@wrong("X5.3", says="GOAL 2 met it, and it stands there still")
class gathers_and_does_not_read(Listed):
    """The errors are in the results, and the results are nobody's."""

    async def broadcast(self, text: str):
        sends = (each.send_text(text) for each in self.connections)
        await asyncio.gather(*sends, return_exceptions=True)


@wrong("X5.3", says="Fan 8 was closed from our side, and stood in the list; then broadcast('GOAL 3') raised")
class knows_one_of_two_errors(Listed):
    """Lost is one thing, closed by us is another."""

    async def broadcast(self, text: str):
        for websocket in self.connections.copy():
            try:
                await websocket.send_text(text)
            except WebSocketDisconnect:
                self.disconnect(websocket)


@wrong("X5.3", says="no connection was bad; then came broadcast('GOAL 4'), and fans 1, 2, 3, 5, 7 and 9 never heard it")
class takes_every_error_for_a_goodbye(Listed):
    """One mistake of a caller, and the list is empty."""

    async def broadcast(self, text: str):
        for websocket in self.connections.copy():
            try:
                await websocket.send_text(text)
            except Exception:
                self.disconnect(websocket)


@wrong("X5.3", says="Your broadcast came back as if all were well: who shall find this mistake?")
class swallows_the_rest(Listed):
    """Sorts the errors, and drops those that it does not know."""

    async def broadcast(self, text: str):
        for websocket in self.connections.copy():
            try:
                await websocket.send_text(text)
            except Exception as error:
                if isinstance(error, (WebSocketDisconnect, RuntimeError)):
                    self.disconnect(websocket)


@wrong("X5.3", says="came back as if all were well, and the fans heard '7': who shall find this mistake?")
class makes_a_text_of_anything(Listed):
    """Then nothing fails, and every fan sees the mistake but its caller."""

    async def broadcast(self, text: str):
        text = str(text)
        for websocket in self.connections.copy():
            try:
                await websocket.send_text(text)
            except (WebSocketDisconnect, RuntimeError):
                self.disconnect(websocket)


@wrong("X5.3", says="Fan 4 of 9 vanished while your broadcast waited for it, and fan 1 heard it 2 times, in place of")
class begins_again(Listed):
    """After an error, once more from the beginning, for the sake of those behind."""

    async def broadcast(self, text: str):
        while True:
            try:
                for websocket in self.connections.copy():
                    await websocket.send_text(text)
                return
            except (WebSocketDisconnect, RuntimeError):
                self.disconnect(websocket)


@wrong("X5.3", says="then broadcast('GOAL 1') raised ValueError: list.remove(x): x not in list")
class lets_go_twice(Listed):
    """`except`, and what follows it, both take it off."""

    async def broadcast(self, text: str):
        gone = []
        for websocket in self.connections.copy():
            try:
                await websocket.send_text(text)
            except (WebSocketDisconnect, RuntimeError):
                self.disconnect(websocket)
                gone.append(websocket)
        for websocket in gone:
            self.connections.remove(websocket)


@wrong("X5.3", says="Passing coroutines is forbidden, use tasks explicitly")
class waits_for_coroutines(Listed):
    """`asyncio.wait` has not taken them since Python 3.11."""

    async def broadcast(self, text: str):
        await asyncio.wait([each.send_text(text) for each in self.connections])


@wrong("X5.3", says="and fans 1, 2, 3, 5, 6, 7, 8 and 9 never heard it. Python adds: coroutine 'WebSocket.send_text'")
class forgets_await(Listed):
    """Nothing is sent, and so nothing can fail."""

    async def broadcast(self, text: str):
        for websocket in self.connections.copy():
            try:
                websocket.send_text(text)
            except (WebSocketDisconnect, RuntimeError):
                self.disconnect(websocket)


# ---- X5.4, presence


class Present:
    """The model, to be changed in one place."""

    def __init__(self):
        self.room_of: dict[WebSocket, str] = {}

    async def connect(self, websocket: WebSocket, room: str):
        await websocket.accept()
        self.room_of[websocket] = room
        await self.tell(room)

    async def disconnect(self, websocket: WebSocket):
        room = self.room_of.pop(websocket, None)
        if room is not None:
            await self.tell(room)

    def inside(self, room: str):
        return [each for each, theirs in self.room_of.items() if theirs == room]

    async def tell(self, room: str):
        fans = self.inside(room)
        for websocket in fans:
            await self.send(websocket, f"{room}: {len(fans)}")

    async def send(self, websocket: WebSocket, text: str):
        try:
            await websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            pass


@right("X5.4")
class lets_go_and_tells_again:
    """Whoever turns out to be gone is let go at once, and the room hears the new number."""

    def __init__(self):
        self.rooms = defaultdict(set)

    async def connect(self, websocket: WebSocket, room: str):
        await websocket.accept()
        self.rooms[room].add(websocket)
        await self.tell(room)

    async def disconnect(self, websocket: WebSocket):
        for room in [name for name, fans in self.rooms.items() if websocket in fans]:
            self.rooms[room].discard(websocket)
            await self.tell(room)

    async def tell(self, room: str):
        fans = list(self.rooms[room])
        text = f"{room}: {len(fans)}"
        results = await asyncio.gather(*(each.send_text(text) for each in fans), return_exceptions=True)
        gone = {each for each, result in zip(fans, results, strict=True) if result}
        if gone:
            self.rooms[room] -= gone
            await self.tell(room)


@wrong("X5.4", says="Fan 1 has come to the final; fan 1 should hear “final: 1”, and hears nothing")
class leaves_the_newcomer_out(Present):
    """Tells the others, and then takes it in."""

    async def connect(self, websocket: WebSocket, room: str):
        await websocket.accept()
        for each in self.inside(room):
            await self.send(each, f"{room}: {len(self.inside(room)) + 1}")
        self.room_of[websocket] = room


@wrong("X5.4", says="Fan 1 has come to the final; fan 1 should hear “final: 1”, and hears “final: 0”")
class counts_too_early(Present):
    """The number of those who were here before."""

    async def connect(self, websocket: WebSocket, room: str):
        await websocket.accept()
        text = f"{room}: {len(self.inside(room))}"
        self.room_of[websocket] = room
        for each in self.inside(room):
            await self.send(each, text)


@wrong("X5.4", says="Fan 2 has come to the final; fan 1 should hear “final: 2”, and hears nothing")
class tells_the_newcomer_only(Present):
    """Those who were here keep the old number."""

    async def connect(self, websocket: WebSocket, room: str):
        await websocket.accept()
        self.room_of[websocket] = room
        await self.send(websocket, f"{room}: {len(self.inside(room))}")


@wrong("X5.4", says="Fan 3 has come to the semifinal; fan 1 should hear nothing, and hears “semifinal: 1”")
class tells_all_rooms(Present):
    """The right number, to everyone."""

    async def tell(self, room: str):
        for websocket in list(self.room_of):
            await self.send(websocket, f"{room}: {len(self.inside(room))}")


@wrong("X5.4", says="Fan 3 has come to the semifinal; fan 3 should hear “semifinal: 1”, and hears “semifinal: 3”")
class counts_all_rooms(Present):
    """The right room, with everyone's number."""

    async def tell(self, room: str):
        for websocket in self.inside(room):
            await self.send(websocket, f"{room}: {len(self.room_of)}")


@wrong("X5.4", says="Fan 2 has left the final; fan 1 should hear “final: 2”, and hears nothing")
class is_silent_at_the_end(Present):
    """Half of the moments."""

    async def disconnect(self, websocket: WebSocket):
        self.room_of.pop(websocket, None)


@wrong("X5.4", says="Fan 2 has left the final; fan 1 should hear “final: 2”, and hears “final: 3”")
class counts_the_leaver(Present):
    """Tells, and then takes off."""

    async def disconnect(self, websocket: WebSocket):
        if websocket in self.room_of:
            await self.tell(self.room_of[websocket])
            del self.room_of[websocket]


@wrong("X5.4", says="Fan 2, who had left, was let go once more; disconnect() raised KeyError")
class pops_what_is_not_there(Present):
    """Twice is an error again."""

    async def disconnect(self, websocket: WebSocket):
        await self.tell(self.room_of.pop(websocket))


@wrong("X5.4", says="Fan 2, who had left, was let go once more; fan 1 should hear nothing, and hears “final: 2”")
class tells_what_has_not_changed(Present):
    """Twice is told twice."""

    async def connect(self, websocket: WebSocket, room: str):
        websocket.state.room = room
        await super().connect(websocket, room)

    async def disconnect(self, websocket: WebSocket):
        self.room_of.pop(websocket, None)
        await self.tell(websocket.state.room)


@wrong("X5.4", says="Fan 2, who had left, was let go once more; fan 1 should hear nothing, and hears “final: 1”")
class counts_down_twice(Present):
    """A number beside the fans, which nobody holds against them."""

    def __init__(self):
        self.room_of = {}
        self.counts = defaultdict(int)

    async def connect(self, websocket: WebSocket, room: str):
        await websocket.accept()
        websocket.state.room = room
        self.room_of[websocket] = room
        self.counts[room] += 1
        await self.tell(room)

    async def disconnect(self, websocket: WebSocket):
        self.room_of.pop(websocket, None)
        self.counts[websocket.state.room] -= 1
        await self.tell(websocket.state.room)

    async def tell(self, room: str):
        for websocket in self.inside(room):
            await self.send(websocket, f"{room}: {self.counts[room]}")


@wrong("X5.4", says="disconnect() returned None at once, and cannot be awaited")
class has_a_plain_disconnect(Present):
    """As on every rung; but this one has to tell somebody."""

    def disconnect(self, websocket: WebSocket):
        self.room_of.pop(websocket, None)


@wrong("X5.4", says="who are gone were still noted there: your connect raised WebSocketDisconnect")
class has_no_try(Present):
    """The newcomer is thrown out for those who are gone."""

    async def send(self, websocket: WebSocket, text: str):
        await websocket.send_text(text)

    async def tell(self, room: str):
        fans = self.inside(room)
        for websocket in fans:
            await self.send(websocket, f"{room}: {len(fans)}")


@wrong("X5.4", says="and hears nothing: 30 who are gone were still noted there. Where did the round end?")
class has_one_try_for_the_round(Present):
    """X5.3, once more."""

    async def tell(self, room: str):
        fans = self.inside(room)
        try:
            for websocket in fans:
                await websocket.send_text(f"{room}: {len(fans)}")
        except (WebSocketDisconnect, RuntimeError):
            pass


@wrong("X5.4", says="Now they have all been let go, two are left, and the latest that fan 1 knows is 'final: 32'")
class lets_go_in_silence(Present):
    """Who turns out to be gone is taken off, and nobody is told the new number."""

    async def send(self, websocket: WebSocket, text: str):
        try:
            await websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            self.room_of.pop(websocket, None)


@wrong("X5.4", says="two are left, and the latest that fan 36 knows is 'final: 32'")
class tells_from_within_the_round(Present):
    """The inner round tells the new number, and the outer one goes on with the old."""

    async def tell(self, room: str):
        fans = self.inside(room)
        for websocket in fans:
            try:
                await websocket.send_text(f"{room}: {len(fans)}")
            except (WebSocketDisconnect, RuntimeError):
                await self.disconnect(websocket)


@wrong("X5.4", says="and hears nothing. Python adds: coroutine 'leaves_the_telling_undone.tell' was never awaited")
class leaves_the_telling_undone(Present):
    """The telling is made, and not done."""

    async def connect(self, websocket: WebSocket, room: str):
        await websocket.accept()
        self.room_of[websocket] = room
        self.tell(room)

    async def tell(self, room: str):
        for websocket in self.inside(room):
            await self.send(websocket, f"{room}: {len(self.inside(room))}")
